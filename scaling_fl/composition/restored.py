"""A state that a run has saved, put back into its model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scaling_fl.composition.clients import make_link
from scaling_fl.composition.data import deal, owners_of_test
from scaling_fl.composition.fingerprint import FROZEN, MEANING, OWNERS
from scaling_fl.composition.model import adapted, load_model
from scaling_fl.composition.own_models import OwnParts, memory_of, personal_parts
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import Config, ConfigurationError, read_single_settings
from scaling_fl.config.model_rules import weights_problem
from scaling_fl.core.errors import UserError
from scaling_fl.core.exchange import SingleExchange
from scaling_fl.core.state import GlobalState
from scaling_fl.core.vector import Layout
from scaling_fl.federation.base import MOVED
from scaling_fl.federation.downloads import Downloads
from scaling_fl.federation.evaluator import Evaluator
from scaling_fl.learning.models.adapters import frozen_digest
from scaling_fl.learning.models.quantised import dequantised, placed
from scaling_fl.learning.task import Examples, Measurement, Task
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.runtime.record.manifest import layout_differences
from scaling_fl.runtime.tracking.places import Saved

_OF_MODEL = ("model", "adapter", "seed", "max_seq_len", "load")
_OF_TEST = (
    *("task_name", "train_path", "test_path", "val_batch_size", "data", "data_seed"),
    *("partition", "device"),  # test data that is held out leaves each client a row
)


def settings_of(saved: Saved, changes: Mapping[str, Any]) -> Config:
    """Return the run's own settings of its model and its test data, with some changed.

    Changes to the section ``data`` are merged into it. What only concerns training is left at its
    defaults, and so is a cache folder that this machine does not have.

    Raises:
        ConfigurationError: a value is out of its range.
    """
    stored = saved.checkpoint.config
    kept: dict[str, Any] = {
        name: stored[name] for name in (*_OF_MODEL, *_OF_TEST) if name in stored
    }
    data = {**kept.get("data", {}), **changes.get("data", {})}
    if data.get("cache_dir") and not Path(data["cache_dir"]).expanduser().is_dir():
        data["cache_dir"] = None
    if data.get("test_share") is None:
        data.pop("test_of", None)
    is_same_task = changes.get("task_name") in (None, stored["task_name"])
    if data.get("test_share") is None and not (personal_parts(saved) and is_same_task):
        kept.pop("partition", None)
    config = read_single_settings({**kept, **changes, "data": data})
    if problem := weights_problem(config.model):
        raise ConfigurationError([problem])
    return config


def check_alike(states: Sequence[Saved], *, ignoring: Sequence[str] = ()) -> None:
    """Refuse to treat states as one that are not of the same parameters of the same model.

    Raises:
        UserError: naming the first state that differs, and how.
    """
    first = states[0]
    for other in states[1:]:
        found = [
            f"{name} ({first.fingerprint.get(name)} and {other.fingerprint.get(name)})"
            for name in ("model", *MEANING)
            if name not in ignoring and first.fingerprint.get(name) != other.fingerprint.get(name)
        ]
        if first.checkpoint.layout != other.checkpoint.layout:
            found.append("the names or shapes of their parameters")
        if found:
            raise UserError(
                f"checkpoints must be alike to be averaged, and {first.where} and {other.where} "
                f"differ in {', '.join(found)}; give checkpoints of one model and adapter."
            )


def restore(
    saved: Saved, config: Config, task: Task, device: torch.device, *, in_fp32: bool = False
) -> LocalTrainer:
    """Load the model that a state belongs to onto a device, with the state in it.

    What the vector does not hold comes from the base model, whose hash must be that of the run's.
    With ``in_fp32`` a base of fewer bits becomes one in fp32, with the weights that it computes
    with.

    Raises:
        UserError: the base model is another one than that of the run.
        UserError: it cannot be had.
    """
    trainer = restore_untrained(saved, config, task, device, in_fp32=in_fp32)
    put(saved, saved.checkpoint.vector, trainer)
    return trainer


def restore_untrained(
    saved: Saved, config: Config, task: Task, device: torch.device, *, in_fp32: bool = False
) -> LocalTrainer:
    """Load the model that a state belongs to as it was before any training, as ``restore`` does."""
    model = _verified_model(saved, config, task)
    if in_fp32 and config.load.bits < 32:
        model = adapted(dequantised(task.load_model()), config, task)
    return LocalTrainer(placed(model, device), task.loss, optimiser=config.optimiser)


def put(saved: Saved, vector: Tensor, trainer: LocalTrainer) -> None:
    """Put a vector of a state, and what the state's frozen weights have moved by, into a model."""
    trainer.vector.copy_(vector)
    moved = moved_base(saved)
    trainer.base.move_to(None if moved is None else moved.to(trainer.vector.device))


def moved_base(saved: Saved) -> Tensor | None:
    """Return what the frozen weights of a state have moved by; None if they have not."""
    return memory_of(saved).server.get(MOVED)


def _verified_model(saved: Saved, config: Config, task: Task) -> nn.Module:
    model = load_model(config, task)
    layout = Layout.of(model.named_parameters())
    if layout != saved.checkpoint.layout:
        found = layout_differences(saved.checkpoint.layout.to_json(), layout.to_json())
        raise UserError(
            f"{saved.where} does not fit model={config.model}: {'; '.join(found)}; give the "
            "folder or id of the run's own base model with --model."
        )
    expected = saved.fingerprint.get(FROZEN)
    if expected is not None and frozen_digest(model) != expected:
        raise UserError(
            f"{saved.where} was trained on a base model with other weights than those of "
            f"model={config.model}, by their hash; give the folder or id of the run's own base "
            "model with --model."
        )
    return model


def received_by_tier(saved: Saved) -> list[Tensor]:
    """Send a state to each tier of its run as the next round would; returns what they receive.

    Raises:
        UserError: the run has no tiers, or each of its clients keeps a part of the model.
    """
    config = read_single_settings(saved.checkpoint.config)
    if not config.tiers:
        raise UserError(f"{saved.where} is of a run without tiers; leave --tiers out.")
    if personal_parts(saved):
        raise UserError(
            f"{saved.where} has a model for each client and none for a tier; leave --tiers out."
        )
    found = saved.checkpoint
    state = GlobalState(found.vector, memory=memory_of(saved), round=found.round)
    links = [make_link(settings, config, found.layout) for settings in config.by_tier()]
    downloads = Downloads(links, state, found.round + 1)
    return [downloads.received(tier).vector for tier in range(len(links))]


def with_owners(
    own: OwnParts, saved: Saved, config: Config, task: Task, test: Examples
) -> OwnParts:
    """Find out who answers each test example, as the run did: its training data tells.

    Raises:
        UserError: the training data cannot be read, or is not that of the run.
    """
    own.check_are_here(own.memories)
    stored = saved.checkpoint.config
    kept = {name: stored[name] for name in (*_OF_MODEL, *_OF_TEST, "iid_split") if name in stored}
    data = {**kept["data"], "cache_dir": config.data.cache_dir}
    run = read_single_settings({**kept, "model": config.model, "data": data})
    dealt = saved.fingerprint[OWNERS]
    its_task = make_task(run)
    train = its_task.load_examples("train")
    if not train.key.startswith(dealt["data"][0]):
        raise UserError(
            f"train_path must have the training data of {saved.where}, which tells who answers "
            f"each test example, got other data at {run.train_path}; put it back, or evaluate one "
            "client's model by --client."
        )
    partitions = deal(run, its_task, train, dealt["num_clients"])
    return replace(own, owners=owners_of_test(run, task, test, train, partitions))


def evaluate_vector(
    trainer: LocalTrainer,
    vector: Tensor,
    measured: Sequence[Measurement],
    *,
    batch_size: int,
    own: OwnParts | None = None,
) -> dict[str, float]:
    """Evaluate a vector (fp32, the layout's size) as a round of a run does, per class as well."""
    evaluator = Evaluator(
        trainer,
        measured,
        batch_size=batch_size,
        detailed=True,
        owners=own.owners if own else None,
        personal=own.personal if own else None,
    )
    device = trainer.vector.device
    return evaluator(vector.to(device), SingleExchange(num_sites=1), own.memories if own else None)
