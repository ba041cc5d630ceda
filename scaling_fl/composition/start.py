"""Composition of where a job starts from: its model, or the state that another job has saved."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from scaling_fl.composition.fingerprint import MEANING, START, of_values
from scaling_fl.composition.restored import moved_base
from scaling_fl.config import Config
from scaling_fl.core.errors import InputError
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.vector import Layout
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.runtime.record.checkpoints import Checkpoints
from scaling_fl.runtime.record.manifest import layout_differences
from scaling_fl.runtime.storage import open_storage
from scaling_fl.runtime.tracking.places import JobPlaces, Saved, open_saved


@dataclass(frozen=True)
class Start:
    """The vector of round 0, where it is not the model's own, and the fingerprint of it."""

    vector: Tensor | None = None
    """On worker 0 alone, which gives it to the others."""
    fingerprint: dict[str, Any] = field(default_factory=dict)


def load_start(
    config: Config,
    trainer: LocalTrainer,
    kept: dict[str, Any],
    job: JobPlaces | None,
    exchange: Exchange,
) -> Start:
    """Load what ``init_from`` names, on worker 0; a job that has begun no longer needs it.

    ``kept`` is the fingerprint that the run's own checkpoints must have.

    Raises:
        InputError: it is of another model or adapter, has other labels, or has moved its base.
        UserError, CheckpointError, StorageError: there is nothing that can be loaded.
    """
    if config.init_from is None:
        return Start()
    vector, digest = None, ""
    if exchange.rank == 0:
        assert job is not None
        digest = _digest_of_begun(job)
        if not digest:
            saved = open_saved(config.init_from, lambda text: None, option=START)
            _check_base(saved)
            vector = _fitting(saved, trainer.layout, kept)
            digest = of_values(vector)
            vector = vector.to(trainer.vector.device)
    mine = [{START: digest}] if exchange.rank == 0 else []
    (shared,) = exchange.gather(mine)
    return Start(vector, {START: shared[START]})


def _digest_of_begun(job: JobPlaces) -> str:
    """Return what a job that has checkpoints started from; empty when it has none."""
    checkpoints = Checkpoints(open_storage(job["checkpoints"]), None, lambda text: None)
    if not checkpoints.rounds():
        return ""
    computation = checkpoints.load().manifest["progress"].get("computation", {})
    return str(computation.get(START, "the model"))


def _check_base(saved: Saved) -> None:
    if moved_base(saved) is not None:
        raise InputError(
            f"init_from must be of a job whose base model stayed as it was, got {saved.where}, "
            "which has moved it, as merge.method=exact and stack do; export it by "
            "scripts/merge_adapter.py, and give that folder as model instead."
        )


def _fitting(saved: Saved, layout: Layout, kept: dict[str, Any]) -> Tensor:
    theirs = saved.checkpoint.layout
    found = [
        f"{name} was {saved.fingerprint.get(name)}, is now {kept.get(name)}"
        for name in MEANING
        if saved.fingerprint.get(name) != kept.get(name)
    ]
    found += layout_differences(theirs.to_json(), layout.to_json())
    if found:
        raise InputError(
            f"init_from must be of the same model, adapter and labels, got {saved.where}: "
            f"{'; '.join(found)}; give another checkpoint or the settings that it was trained with."
        )
    return saved.checkpoint.vector.clone()
