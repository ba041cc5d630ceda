"""The rules about where the data is, and about the columns of a table."""

import difflib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

from scaling_fl.config.conditions import is_set, listed, value_at
from scaling_fl.config.image_rules import missing_images
from scaling_fl.config.own import is_own
from scaling_fl.config.problems import Problem, Rule
from scaling_fl.config.schema import Config
from scaling_fl.config.types import IMAGE_TASKS, LANGUAGE_TASKS

FILE_TASKS = ("agnews", "yelp", "spooky_author")
DATA_PATHS = ("train_path", "test_path")
_OF_PEOPLE = ("partition.column", "privacy.group_column")
COLUMNS = ("data.text", "data.text_pair", "data.label", *_OF_PEOPLE)
"""The settings that name columns of a table of labelled texts."""
OF_INSTRUCTIONS = ("data.instruction", "data.response", "data.messages", *_OF_PEOPLE)
"""The settings that name columns of a table of conversations."""
OF_IMAGES = ("data.image", "data.label", *_OF_PEOPLE)
"""The settings that name columns of a table of images."""
TABLE_TASKS = ("table", "docvqa", *LANGUAGE_TASKS)
_WITHOUT_LABELS = ("docvqa", *LANGUAGE_TASKS)
_NEEDED = {
    "table": {"data.text": "the texts", "data.label": "the labels"},
    "images": {"data.label": "the labels"},
}
_SHOWN_COLUMNS = 12
_AGNEWS_TEXTS = ("description", "title", "both")

ColumnsOf = Callable[[str, Literal["train", "test"]], Sequence[str]]
"""(path, "train" or "test") -> the names of a table's columns; raises UserError."""


def has_columns(config: Config) -> bool:
    """Say whether the rows of a task's data have columns that settings can name."""
    is_of_images = config.task_name == "images" and config.data.image is not None
    return config.task_name in (*TABLE_TASKS, "flair") or is_of_images


def _is_unset_without_labels(path: str) -> Callable[[Config], bool]:
    return lambda config: config.task_name not in _WITHOUT_LABELS or not is_set(config, path)


DATA: tuple[Rule, ...] = (
    Rule(
        "data.text",
        ("task_name",),
        lambda c: c.task_name != "agnews" or c.data.text in (None, *_AGNEWS_TEXTS),
        f"must be {listed(_AGNEWS_TEXTS)}",
        "use one of them",
    ),
    Rule(
        "partition.kind",
        ("task_name",),
        lambda c: c.partition.kind != "column" or has_columns(c) or is_own(c.task_name),
        "must be another kind unless task_name is table, whose rows have columns",
        "set task_name=table (or images with data.image), or drop partition.kind",
    ),
    Rule(
        "data.test_of",
        ("partition.kind",),
        lambda c: c.data.test_of == "rows" or c.partition.kind == "column",
        "must be rows unless partition.kind is column, which says whose each row is",
        "set partition.kind=column and partition.column, or drop data.test_of",
    ),
    Rule(
        "partition.pooled",
        ("privacy.group_column",),
        lambda c: not c.partition.pooled or c.privacy.group_column is None,
        "must be 0 with privacy.group_column, because a group is protected at the client that has"
        " all of it",
        "drop partition.pooled",
    ),
    Rule(
        "privacy.group_column",
        ("task_name",),
        lambda c: (
            c.privacy.group_column is None
            or (has_columns(c) and c.task_name != "flair")
            or is_own(c.task_name)
        ),
        "must be left alone unless task_name is table, whose rows have columns",
        "set task_name=table, or drop privacy.group_column",
    ),
    Rule(
        "partition.kind",
        ("task_name", "iid_split"),
        lambda c: (
            c.task_name not in _WITHOUT_LABELS
            or c.partition_kind in ("iid", "column")
            or is_own(c.partition_kind)
        ),
        "must be iid, column or my_module:my_split for conversations, comments and questions "
        "about pages, which have no labels",
        "set partition.kind=iid, or partition.kind=column with partition.column",
    ),
    *(
        Rule(
            path,
            ("task_name",),
            _is_unset_without_labels(path),
            "must be left alone for conversations, comments and questions about pages, which have "
            "no labels",
            f"drop {path}",
        )
        for path in ("per_class_metrics", "metrics")
    ),
)


def path_problems(config: Config, *, has_data: bool) -> Iterator[Problem]:
    """Yield what is wrong with the places of the data; not to give them is, with ``has_data``."""
    missing = [path for path in DATA_PATHS if value_at(config, path) is None]
    is_packaged = config.task_name == "generalnlp" and len(missing) == 2
    if config.task_name in TABLE_TASKS and has_data and not is_packaged:
        yield from _missing_table(config, missing)
    if config.task_name in IMAGE_TASKS and has_data:
        yield from missing_images(config, missing)
    for path in DATA_PATHS:
        if path not in missing:
            yield from _missing_file(config, path, value_at(config, path))
        elif not has_data or config.task_name in IMAGE_TASKS:
            continue
        elif config.task_name in FILE_TASKS:
            rule = f"must be given for {config.task_name}"
            demo = (
                ", or try with demo, which brings its own"
                if len(missing) == 2 and path == "train_path"
                else ""
            )
            yield Problem(path, rule, "None", f"set {path} to the file of its data{demo}")
        elif len(missing) == 1 and config.task_name not in TABLE_TASKS:
            rule = "must be given when the other one is"
            yield Problem(path, rule, "None", "give train_path and test_path, or neither")


def _missing_table(config: Config, missing: Sequence[str]) -> Iterator[Problem]:
    if "train_path" in missing:
        yield Problem(
            "train_path",
            f"must be given for {config.task_name}",
            "None",
            "set train_path to a CSV, TSV, JSON, JSONL or Parquet file, or to a data set that "
            "save_to_disk of datasets wrote",
        )
    if "test_path" in missing and config.data.test_share is None:
        yield Problem(
            "test_path",
            f"must be given for {config.task_name} unless data.test_share is",
            "None",
            "give test_path, or hold out a part of the training rows by data.test_share=0.2",
        )
    if (
        not missing
        and config.train_path == config.test_path
        and os.path.isfile(config.test_path or "")
    ):
        yield Problem(
            "test_path",
            "must be another file than train_path",
            repr(config.test_path),
            "give the test data, or data.test_share=0.2 instead of test_path",
        )


def _missing_file(config: Config, path: str, location: str) -> Iterator[Problem]:
    downloads = config.task_name.startswith("20newsgroups") and location == "sklearn"
    if "://" in location or downloads:
        return
    one_file = config.task_name in FILE_TASKS
    if not (os.path.isfile if one_file else os.path.exists)(location):
        what = "an existing file" if one_file else "an existing file or folder"
        remedy = f"correct the path (looked in {os.getcwd()})"
        yield Problem(path, f"must name {what}", repr(location), remedy)


def column_problems(
    config: Config, bad: Collection[str], columns_of: ColumnsOf | None
) -> Iterator[Problem]:
    """Yield what is wrong with the columns that settings name.

    Without ``columns_of``, and for paths that are ``bad``, it is not checked whether the table has
    the columns.

    Raises:
        UserError: a table cannot be read.
    """
    if not has_columns(config) or config.task_name == "flair":
        return
    columns = None
    if columns_of and config.train_path and "train_path" not in bad:
        columns = columns_of(config.train_path, "train")
    yield from _unnamed_columns(config, columns)
    yield from _columns_of_two_uses(config)
    if columns_of and columns and config.test_path and "test_path" not in bad:
        yield from _columns_of_test(config, columns, columns_of(config.test_path, "test"))


def _unnamed_columns(config: Config, columns: Sequence[str] | None) -> Iterator[Problem]:
    needed = dict(_NEEDED.get(config.task_name, {}))
    if config.partition.kind == "column":
        needed["partition.column"] = "the clients"
    there = "" if columns is None else f"{config.train_path}, which has {_shown(columns)}"
    for path in _columns_of(config):
        names = _names(config, path)
        if not names and path in needed:
            word = path.partition(".")[2]
            example = word if columns is None or word in columns else "COLUMN"
            where = f" in {there}" if there else ""
            rule = f"must name the column of {needed[path]}{where}"
            yield Problem(path, rule, "None", f"give {path}={example}")
        for name in names:
            if columns is not None and name not in columns:
                near = difflib.get_close_matches(name, columns, n=1)
                remedy = f"use {path}={near[0]}" if near else "choose one of them"
                yield Problem(path, f"must name a column of {there}", repr(name), remedy)
            elif columns is not None and list(columns).count(name) > 1:
                rule = f"must name a column that is once in {there}"
                yield Problem(path, rule, repr(name), "rename the others of that name")


def _columns_of(config: Config) -> tuple[str, ...]:
    """Return the settings that name columns of the table of a task."""
    return {"table": COLUMNS, "images": OF_IMAGES}.get(config.task_name, OF_INSTRUCTIONS)


def _columns_of_two_uses(config: Config) -> Iterator[Problem]:
    texts = _names(config, "data.text")
    if config.data.label in (*texts, *_names(config, "data.text_pair")):
        yield Problem(
            "data.label",
            "must not be a column of the text as well, from which the model would read it",
            repr(config.data.label),
            "drop it from data.text and data.text_pair",
        )
    if both := [name for name in _names(config, "data.text_pair") if name in texts]:
        rule = "must be other columns than data.text"
        yield Problem(
            "data.text_pair", rule, repr(listed(both, "and")), "drop them from one of both"
        )


def _columns_of_test(
    config: Config, of_train: Sequence[str], columns: Sequence[str]
) -> Iterator[Problem]:
    paths = [path for path in _columns_of(config) if path not in _OF_PEOPLE]
    names = [name for path in paths for name in _names(config, path)]
    if lacking := [name for name in names if name in of_train and name not in columns]:
        yield Problem(
            "test_path",
            f"must have the columns of the training data, and lacks {listed(lacking, 'and')}",
            f"{config.test_path!r}, which has {_shown(columns)}",
            "rename its columns or give another table",
        )


def _names(config: Config, path: str) -> tuple[str, ...]:
    value = value_at(config, path)
    return (value,) if isinstance(value, str) else tuple(value or ())


def _shown(columns: Sequence[str]) -> str:
    names = [name if len(name) <= 40 else f"{name[:39]}…" for name in columns[:_SHOWN_COLUMNS]]
    more = f" and {len(columns) - len(names)} more" if len(columns) > len(names) else ""
    kinds = "the column" if len(columns) == 1 else "the columns"
    return f"{kinds} {', '.join(names)}{more}"
