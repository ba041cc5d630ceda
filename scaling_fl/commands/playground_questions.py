"""What the playground asks: which runs, and which of their numbers, by row and column."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scaling_fl.commands.endings import ROOT
from scaling_fl.config import NAMED, Config, ConfigurationError, read_config
from scaling_fl.config.merges import MERGES
from scaling_fl.config.typed import read_typed
from scaling_fl.runtime.record.journal import JobRecord

LORA: dict[str, Any] = {
    "device": "cpu",
    "num_threads": 1,
    "task_name": "20newsgroups_topics",
    "model": "minilm",
    "max_seq_len": 24,
    # Its pooler has full rank: with pairs alone, a round of so few steps stays at a guess.
    "adapter": NAMED["demo"]["adapter"],
    "optimiser": "adamw",
    "learning_rate": NAMED["demo"]["learning_rate"],
    "batch_size": 8,
    "length_grouped": True,
    "val_batch_size": 100,
    "num_clients": 5,
    "num_local_epochs": 1,
    "num_rounds": 1,
    "data": {"max_train_examples": 300, "max_test_examples": 400},
    "keep_last": None,
}
FULL: dict[str, Any] = {"adapter": {}, "learning_rate": 1e-4}
QUICK: dict[str, Any] = {
    "model": "tiny",
    "data": {"max_train_examples": 80, "max_test_examples": 40},
}
"""What makes the files small enough for a try: such a model learns nothing in such a time."""

SKEWED = ["partition.kind=dirichlet_by_client", "partition.alpha=0.1"]
FAILING = ["partition.kind=label_sorted", "num_clients=4", "clients_per_round=2", "num_rounds=4"]
EPOCHS, STARTS = (1, 2, 4), (0, 2, 4)
ERROR = "400 test texts: a difference of accuracies below 5 points says nothing by itself."

Read = Callable[[JobRecord], float | None]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a grid: what its runs have in common, and which of their numbers it shows."""

    words: list[str]
    """The file of settings, and what is typed after it."""
    read: Read
    shown: str
    is_gain: bool = False
    """Whether the number of the first row is subtracted."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A grid before its runs."""

    name: str
    title: str
    corner: str
    rows: Mapping[str, list[str]]
    columns: Mapping[str, Column]
    notes: list[str] = field(default_factory=list)


def write_files(out: Path, seed: int, *, is_quick: bool) -> dict[str, str]:
    """Write the settings that the runs have in common, and return the files by name."""
    common = LORA | {"seed": seed, "data_seed": seed} | (QUICK if is_quick else {})
    if is_quick:
        common["adapter"] = {"kind": "lora"}
    files = {}
    for name, settings in {"lora": common, "full": common | FULL}.items():
        path = out / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        files[name] = str(path)
    return files


def last(metric: str, factor: float = 1.0) -> Read:
    """Read the last value of a metric."""

    def read(record: JobRecord) -> float | None:
        values = record.metrics[metric]["values"] if metric in record.metrics else []
        return factor * values[-1] if values else None

    return read


def at(metric: str, round_number: int, factor: float) -> Read:
    """Read the value of a metric in a round."""

    def read(record: JobRecord) -> float | None:
        series = record.metrics[metric]
        return factor * dict(zip(series["steps"], series["values"], strict=True))[round_number]

    return read


def followed(lora: str) -> Config:
    """Return the run of the mean whose states the third question begins with."""
    return read_settings([lora, *SKEWED, f"num_rounds={max(STARTS)}"])


def questions_of(files: Mapping[str, str], states: Path) -> list[Question]:
    """Return the four questions; ``states`` has those of the run that is ``followed``."""
    lora = files["lora"]
    return [_distance(lora), _gain(lora, files["full"]), _over_rounds(lora, states), _failure(lora)]


def _distance(lora: str) -> Question:
    def read(record: JobRecord) -> float:
        metrics = record.metrics
        return metrics["update.drift"]["values"][-1] / metrics["update.norm_mean"]["values"][-1]

    return Question(
        name="distance",
        title="How far apart do clients get? Distance to their mean, per length of an update",
        corner="split of the data",
        rows={
            "iid": [],
            "Dirichlet 1": [SKEWED[0], "partition.alpha=1.0"],
            "Dirichlet 0.1": SKEWED,
            "sorted by label": ["partition.kind=label_sorted"],
        },
        columns={
            f"{n} epoch{'s'[: n > 1]}": Column(
                words=[lora, f"num_local_epochs={n}"], read=read, shown=".2f"
            )
            for n in EPOCHS
        },
        notes=["update.drift / update.norm_mean of round 1; 1.00 is about: no agreement."],
    )


def _gain(lora: str, full: str) -> Question:
    accuracy, loss = last("validation.accuracy", 100.0), last("validation.loss")
    return Question(
        name="gain",
        title="What does a merge gain over the mean, in one round?",
        corner="merge.method",
        rows=_merges(),
        columns={
            f"{name}{what}": Column(words=[file, *SKEWED], read=read, shown=shown, is_gain=is_gain)
            for name, file in (("LoRA ", lora), ("full ", full))
            for what, read, shown, is_gain in (
                ("%", accuracy, ".1f", False),
                ("gain", accuracy, "+.1f", True),
                ("loss", loss, "+.3f", True),
            )
        },
        notes=[
            ERROR,
            "loss: validation loss less that of the mean; below 0 is better.",
            _not_by_default(),
        ],
    )


def _over_rounds(lora: str, states: Path) -> Question:
    return Question(
        name="over_rounds",
        title="Does the gain shrink? One round of a merge after so many rounds of the mean",
        corner="merge.method",
        rows=_merges(),
        columns={
            f"after {n}": Column(
                words=[lora, *SKEWED, *([f"init_from={states}/round-{n:06d}"] if n else [])],
                read=last("validation.accuracy", 100.0),
                shown="+.1f",
                is_gain=True,
            )
            for n in STARTS
        },
        notes=["points of accuracy above one more round of the mean", ERROR, _not_by_default()],
    )


def _failure(lora: str) -> Question:
    return Question(
        name="failure",
        title="Where does plain FedAvg fail? Clients of few labels, two in a round",
        corner="settings",
        rows={
            "the same data, iid": ["partition.kind=iid"],
            "plain FedAvg": [],
            "prox_mu=0.1": ["prox_mu=0.1"],
            "merge.method=ties": ["merge.method=ties"],
            "server.learning_rate=0.5": ["server.learning_rate=0.5"],
            "all four in a round": ["clients_per_round=4"],
        },
        columns={
            f"round {n}": Column(
                words=[lora, *FAILING], read=at("validation.accuracy", n, 100.0), shown=".1f"
            )
            for n in (1, 2, 3, 4)
        },
        notes=["accuracy in %; a guess is right for about 30 %."],
    )


def _merges() -> dict[str, list[str]]:
    """Name the merges that are compared, and what is typed for each.

    Personal models answer test examples like their own: their accuracy is another measure.
    """
    return {
        name: [f"merge.method={name}", *_tried_with(name)]
        for name, row in MERGES.items()
        if not row.personal
    }


def _tried_with(merge: str) -> list[str]:
    return [f"merge.{name}={value}" for name, value in MERGES[merge].tried_with.items()]


def _not_by_default() -> str:
    """Note the settings without which a merge would be a plain mean."""
    changed = [f"{name} ({', '.join(words)})" for name in MERGES if (words := _tried_with(name))]
    return f"not by default: {', '.join(changed)}"


def read_settings(words: list[str]) -> Config:
    """Read settings as the training command reads what is typed after ``with``.

    Raises:
        ConfigurationError: they cannot be run.
    """
    return read_config(read_typed(words, (Path.cwd(), ROOT)).settings)


def runs_of(question: Question) -> dict[tuple[str, str], Config]:
    """Return the run behind each number; what is refused has none."""
    found = {}
    for row, words in question.rows.items():
        for name, column in question.columns.items():
            try:
                found[row, name] = read_settings([*column.words, *words])
            except ConfigurationError:
                continue
    return found
