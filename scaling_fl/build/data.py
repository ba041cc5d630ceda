"""Configuration -> examples: which task is read, and who owns which of it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_fl.config import Config
from scaling_fl.core.errors import UserError
from scaling_fl.core.exchange import Exchange
from scaling_fl.learning.cache import cache_folder
from scaling_fl.learning.models.loading import load_tokenizer
from scaling_fl.learning.tasks.classification import (
    agnews,
    imdb,
    spooky_author,
    twenty_newsgroups,
    twenty_newsgroups_topics,
    yelp,
)
from scaling_fl.learning.text import tokenised
from scaling_fl.learning.text.labelled import Split, Task, subset
from scaling_fl.methods.partitioning import partition

TASKS: dict[str, Task] = {
    "agnews": agnews,
    "yelp": yelp,
    "imdb": imdb,
    "spooky_author": spooky_author,
    "20newsgroups": twenty_newsgroups,
    "20newsgroups_topics": twenty_newsgroups_topics,
}


@dataclass(frozen=True, kw_only=True)
class Data:
    """The examples that a worker trains and evaluates on, and who owns which."""

    train: tokenised.TokenisedExamples
    test: tokenised.TokenisedExamples
    label_names: list[str]
    parts: list[NDArray[np.int64]]
    tokenizer: Any


def load_data(config: Config, num_clients: int, stage: Callable[[str], None]) -> Data:
    """Read, tokenise (once per machine) and partition the task's text."""
    tokenizer = load_tokenizer(config.model, cache_folder(config.data.cache_dir))
    stage(f"reading {config.task_name}")
    train = load_split(config, "train", tokenizer)
    test = load_split(config, "test", tokenizer)
    try:
        parts = partition(
            train.labels,
            kind=config.partition_kind,
            num_clients=num_clients,
            seed=config.data_seed,
            alpha=config.partition.alpha,
            min_examples=config.partition.min_examples,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    return Data(
        train=train,
        test=test,
        label_names=list(TASKS[config.task_name].LABELS),
        parts=parts,
        tokenizer=tokenizer,
    )


def load_split(config: Config, split: Split, tokenizer: Any) -> tokenised.TokenisedExamples:
    """Read and tokenise the training or the test data of the task."""
    cache = cache_folder(config.data.cache_dir)
    task = TASKS[config.task_name]
    path = config.train_path if split == "train" else config.test_path
    wanted = config.data.max_train_examples if split == "train" else config.data.max_test_examples
    key_parts = {
        "task": config.task_name,
        "split": split,
        "source": task.source_digest(split, path, cache_dir=cache),
        "text": config.data.text or "",
        "subset": f"{wanted}/{config.data_seed}" if wanted else "",
    }
    return tokenised.tokenise(
        lambda: subset(
            task.load(split, path, text=config.data.text, cache_dir=cache), wanted, config.data_seed
        ),
        key_parts=key_parts,
        tokenizer=tokenizer,
        max_seq_len=config.max_seq_len,
        cache_dir=cache,
    )


def check_same_data(data: Data, exchange: Exchange) -> None:
    """Refuse to train when workers do not agree on the data and on who owns what.

    Machines may hold different copies of a file, and draws of floating-point shares may differ
    between kinds of processor.
    """
    parts = hashlib.sha256(b"|".join(part.tobytes() for part in data.parts)).hexdigest()
    found = {
        (row["train"], row["test"], row["parts"])
        for row in exchange.gather(
            [{"train": data.train.key, "test": data.test.key, "parts": parts}]
        )
    }
    if len(found) > 1:
        raise UserError(
            "all machines must have the same data, tokenizer and versions of the libraries, got "
            f"{len(found)} different ones; compare train_path, test_path and model on each of them."
        )
