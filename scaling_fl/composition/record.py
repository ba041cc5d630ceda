"""Composition of worker 0's record."""

from collections.abc import Callable
from typing import Any

from scaling_fl.composition import own
from scaling_fl.composition.budget import Budget
from scaling_fl.composition.data import (
    Data,
    hash_of_examples,
    hash_of_owners,
    natural_clients_sentence,
)
from scaling_fl.config import Config
from scaling_fl.federation.base import MOVED
from scaling_fl.federation.personal import PERSONAL
from scaling_fl.federation.scaffold import CONTROL
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.runtime.record.checkpoints import Checkpoints
from scaling_fl.runtime.record.journal import Journal
from scaling_fl.runtime.record.recorder import Fingerprints, Recorder
from scaling_fl.runtime.storage import open_storage
from scaling_fl.runtime.tracking.places import JobPlaces

Note = Callable[[str], None]
SHOWN_CHARACTERS = 12
"""Of hashes that are there to be compared."""


def make_recorder(
    config: Config,
    trainer: LocalTrainer,
    data: Data,
    job: JobPlaces,
    kept: dict[str, Any],
    computation: dict[str, Any],
    budget: Budget | None,
    note: Note,
) -> Recorder:
    """Make what worker 0 records with, and say who owns which examples.

    With noise, the record says nothing of the examples. ``kept`` and ``computation`` are the two
    fingerprints that ``Fingerprints`` holds.
    """
    if budget is None or budget.disclosure.of_clients:
        partition, sentence = _described(data)
        # So that a comparison can tell whether two runs had the same data and the same split.
        partition["examples"] = hash_of_examples(data.train)[:SHOWN_CHARACTERS]
        partition["owners"] = hash_of_owners(data.partitions)[:SHOWN_CHARACTERS]
        if data.client_names:
            partition["client_names"] = data.client_names
            note(natural_clients_sentence(config, data))
        for text in data.notes:
            note(text)
    else:
        partition, sentence = None, _what_is_recorded(budget)
    note(sentence)
    fingerprints = Fingerprints(
        layout=trainer.layout,
        kept=kept,
        computation=computation,
        config=config.model_dump(mode="json"),
        remembered=frozenset({MOVED, CONTROL, PERSONAL}),
        sources=frozenset(own.sources(config)),
    )
    return Recorder(
        Journal(job["journal"]),
        Checkpoints(open_storage(job["checkpoints"]), config.keep_last, note),
        fingerprints,
        partition=partition,
        baseline={
            "metrics": {} if data.tests_are_elsewhere else data.task.baseline(data.test),
            "num_examples": len(data.test),
            "examples": hash_of_examples(data.test)[:SHOWN_CHARACTERS],
        },
        save_every=config.save_every,
        num_rounds=config.num_rounds,
        note=note,
    )


def _described(data: Data) -> tuple[dict[str, Any], str]:
    """Say who owns which examples, as far as is known here."""
    if not data.is_elsewhere:
        described = data.task.describe(data.train, data.partitions)
        return dict(described.fields), described.sentence
    sizes = [len(examples) for examples in data.partitions]
    sentence = (
        f"{sum(sizes)} examples at {len(sizes)} nodes, which alone have them: {min(sizes)} to "
        f"{max(sizes)} each"
    )
    return {"sizes": sizes}, sentence


def _what_is_recorded(budget: Budget) -> str:
    bytes_too = "" if budget.disclosure.of_bytes else ", and bytes, which tell who was drawn"
    return (
        "the record holds only what epsilon covers, and times; it leaves out clients, their "
        f"examples and training losses{bytes_too}"
    )
