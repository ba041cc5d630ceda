"""A file of experiments -> the runs of a sweep: each checked, named and with its key."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scaling_fl.commands.endings import Misused
from scaling_fl.commands.sweeps.runs import content_digest, named_words, read_words
from scaling_fl.config import Config, ConfigurationError, Problem
from scaling_fl.config.typed import typed_words
from scaling_fl.sweeps.entry import Entry
from scaling_fl.sweeps.experiments import ExperimentsError, Point, read_experiments
from scaling_fl.sweeps.keys import job_name_of, run_key
from scaling_fl.sweeps.labels import label_points
from scaling_fl.sweeps.search_settings import SearchSettings

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
MAX_NAME = 80


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The runs of a sweep, whether they are in its queue or not."""

    name: str
    entries: list[Entry]
    configs: list[Config]
    """The settings of each entry, with the names of its job."""
    repeated: list[tuple[str, str]]
    """The labels of runs that are left out, and of those that they repeat."""
    search: SearchSettings | None = None
    """What chooses the points, which start from the only entry."""
    typed: tuple[str, ...] = ()
    """The settings that the points start from, and those that are typed for all of them."""


def check_sweep(
    file: Path, name: str | None, words: Sequence[str], *, within: str | None = None
) -> Sweep:
    """Read and check all runs of a file; ``words`` are typed after ``with`` for all of them.

    They stand below the key ``within``, if that is given.

    Raises:
        ExperimentsError: with all that is wrong about any of them.
        UserError: their data cannot be read.
    """
    found = read_experiments(file, words, within=within)
    name = check_name(name or found.name)
    labels = label_points(found.points)
    configs: list[Config] = []
    problems: dict[str, list[str]] = {}
    corners = _corners(found.points[0], found.search) if found.search and found.points else ()
    for label, point in (*zip(labels, found.points, strict=True), *corners):
        try:
            configs.append(_config(point, words))
        except ConfigurationError as error:
            for problem in error.problems:
                problems.setdefault(str(problem), []).append(label)
    told = [str(problem) for problem in found.problems]
    told += [f"{_whose(whose, len(labels))}: {text}" for text, whose in problems.items()]
    if told:
        raise ExperimentsError(file, told)
    typed = [[*point.words, *words] for point in found.points]
    sweep = _keyed(name, labels, typed, configs[: len(typed)])
    if not found.search:
        return sweep
    return replace(sweep, search=found.search, typed=tuple(typed[0]))


def _corners(base: Point, search: SearchSettings) -> Iterator[tuple[str, Point]]:
    """Yield a point for each end of a range and each value of a list, and its label."""
    values = {
        path: each if isinstance(each, list) else [each.low, each.high]
        for path, each in search.ranges.items()
    }
    first = {path: each[0] for path, each in values.items()}
    for path, each in values.items():
        for value in each:
            settings = {**base.settings, **first, path: value}
            yield f"search {path}={value}", replace(base, settings=settings)


def check_point(sweep: Sweep, point: Mapping[str, Any]) -> Entry:
    """Make the entry of a point of a search.

    Raises:
        ConfigurationError: the ranges hold points that cannot be run, such as this one.
    """
    chosen = typed_words(point)
    words = [*sweep.typed, *chosen]
    config = read_words(words).config()
    return _keyed(sweep.name, [" ".join(chosen)], [words], [config]).entries[0]


def check_name(name: str) -> str:
    """Check the name of a sweep, which begins those of its jobs.

    Raises:
        Misused: it is none.
    """
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise Misused(
            f"--name must be letters, digits, . _ and -, at most {MAX_NAME} of them, got {name!r}; "
            "give such a name."
        )
    return name


def _config(point: Point, words: Sequence[str]) -> Config:
    """Check the settings of a run, whose job the sweep will name."""
    line = read_words([*point.words, *words])
    if "job_name" in line.typed.settings:
        rule, got = "must be left to the sweep, which names its jobs", line.settings["job_name"]
        line.typed.problems.append(Problem("job_name", rule, repr(got), "use --name"))
    return line.config()


def _whose(labels: Sequence[str], number: int) -> str:
    """Name the runs that share a problem."""
    if len(labels) == number > 1:
        return f"all {number} runs"
    return "; ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")


def _keyed(
    name: str, labels: Sequence[str], words: Sequence[Sequence[str]], configs: Sequence[Config]
) -> Sweep:
    first: dict[str, str] = {}
    entries, kept, repeated = list[Entry](), list[Config](), list[tuple[str, str]]()
    for label, typed, config in zip(labels, words, configs, strict=True):
        key = run_key(config, content_digest)
        if key in first:
            repeated.append((label, first[key]))
            continue
        first[key] = label
        named = named_words(typed, config, name, key)
        job_name = job_name_of(name, key)
        entries.append(Entry(key=key, job_name=job_name, label=label, words=named))
        kept.append(read_words(named).config())
    return Sweep(name=name, entries=entries, configs=kept, repeated=repeated)


def repeats(sweep: Sweep) -> Iterator[str]:
    """Say which runs are left out, because others compute the same."""
    for label, former in sweep.repeated:
        yield f"{label} computes the same as {former}, and is left out"
