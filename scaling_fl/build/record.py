"""Composition of worker 0's record, and of the state that it shares with all workers."""

import hashlib
from collections.abc import Callable
from typing import Any, TypedDict

from torch import Tensor

from scaling_fl.build.budget import Budget
from scaling_fl.build.data import Data
from scaling_fl.config import Config
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.runtime.record.checkpoints import Checkpoints
from scaling_fl.runtime.record.journal import Journal
from scaling_fl.runtime.record.recorder import Identity, Recorder
from scaling_fl.runtime.storage import open_storage

Note = Callable[[str], None]


class Job(TypedDict):
    """Where worker 0 keeps what it records."""

    checkpoints: str
    journal: str


def make_recorder(
    config: Config,
    trainer: LocalTrainer,
    data: Data,
    job: Job,
    must_match: dict[str, Any],
    computed: dict[str, Any],
    budget: Budget | None,
    note: Note,
) -> Recorder:
    """Open worker 0's journal and checkpoints, and journal who owns which examples."""
    partition = data.task.describe(data.train, data.parts)
    journal = Journal(job["journal"])
    journal.append("partition", **partition.fields)

    def journaled_note(text: str) -> None:
        journal.append("note", level="info", text=text)
        note(text)

    note(partition.sentence)
    identity = Identity(
        layout=trainer.layout,
        must_match=must_match,
        computation=computed,
        config=config.model_dump(mode="json"),
    )
    return Recorder(
        journal,
        Checkpoints(open_storage(job["checkpoints"]), config.keep_last, journaled_note),
        identity,
        save_every=config.save_every,
        num_rounds=budget.num_rounds if budget else config.num_rounds,
        tells_cohort=budget is None or budget.draw_seed is None,
        note=journaled_note,
    )


def computation(config: Config, data: Data) -> dict[str, Any]:
    """Collect all that decides what is computed, the data by its content."""
    found = {k: v for k, v in config.identity().items() if k not in ("train_path", "test_path")}
    return found | {
        "num_clients": len(data.parts),
        "data": [data.train.key[:12], data.test.key[:12]],
    }


def kept_terms(config: Config, data: Data, budget: Budget | None) -> dict[str, Any]:
    """Collect what must stay for a job to go on, because what it keeps would mean something else.

    Epsilon and the residuals of error feedback are of the owners of the data, as they were dealt.
    """
    terms: dict[str, Any] = dict(budget.terms) if budget else {}
    if terms or config.upload.error_feedback:
        split = {k: v for k, v in config.identity().items() if k.startswith("partition.")}
        terms["owners"] = {
            "num_clients": len(data.parts),
            "data_seed": config.data_seed,
            "data": [data.train.key[:12]],
            **split,
        }
    if config.server_freeze:
        terms["server_freeze"] = True
    return terms


def vector_digest(vector: Tensor) -> str:
    """Hash what a job's vector was before its first round."""
    return hashlib.sha256(vector.detach().cpu().numpy().data).hexdigest()
