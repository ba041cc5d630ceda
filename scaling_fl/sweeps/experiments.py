"""A file of experiments -> the runs that it means, each as the settings that follow ``with``.

The file holds an experiment, or a list of them. An experiment is a mapping: what it starts from
(``config``), what all its runs have (``overrides``), and what varies: every combination of
``grid``, the rows of ``zip``, and ``seeds``.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from scaling_fl.config import Problem
from scaling_fl.config.files import NotSettings, read_settings_file
from scaling_fl.config.typed import flat_settings, typed_words
from scaling_fl.core.errors import InputError
from scaling_fl.sweeps.search_settings import SearchSettings, search_problems

CONFIG = "config"
"""What may vary beside settings: the named configuration or file that a run starts from."""
_KEYS = ("name", CONFIG, "overrides", "grid", "zip", "seeds", "search")
_Choice = tuple[tuple[str, Any], ...]
"""Settings that vary together, by dotted path, and their values in one run."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A run of a sweep, as it is written."""

    group: str = ""
    """The name of its experiment, where the file has several and names them."""
    configs: tuple[str, ...] = ()
    """The named configurations and files that it starts from."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What it sets over them, by dotted path."""

    @property
    def words(self) -> list[str]:
        """What is typed after ``with`` for this run."""
        return [*self.configs, *typed_words(self.settings)]


@dataclass(frozen=True, kw_only=True)
class Experiments:
    """What a file of experiments says, and what is wrong about it beside settings."""

    name: str
    points: list[Point]
    problems: list[Problem]
    search: SearchSettings | None = None
    """What chooses the points that start from the only one in ``points``."""


class ExperimentsError(InputError):
    """A file of experiments that cannot be run, with one line for every problem."""

    def __init__(self, file: Path, problems: Sequence[str]) -> None:
        count = f"{len(problems)} problem{'s'[: len(problems) > 1]}"
        super().__init__("\n".join([f"{count} in {file}:", *problems]))


def read_experiments(
    file: Path, words: Sequence[str] = (), *, within: str | None = None
) -> Experiments:
    """Read a file of experiments; ``words`` are typed after ``with`` for all its runs.

    ``within`` is the key that they stand below, in a file that says more than that.

    Raises:
        ExperimentsError: it holds no experiments at all.
    """
    found = _read(file, within)
    single = isinstance(found, dict)
    reader = _ExperimentReader({word.partition("=")[0] for word in words if "=" in word})
    points: list[Point] = []
    for number, each in enumerate([found] if single else found):
        points += reader.points(each, "" if single else f"[{number}]", has_group=not single)
    name = found.get("name") if single else None
    return Experiments(
        name=str(name or file.stem),
        points=points,
        problems=reader.problems,
        search=reader.search,
    )


def _read(file: Path, within: str | None) -> Any:
    try:
        found = read_settings_file(file)
    except NotSettings as error:
        place = f"line {error.line}" if error.line else str(file.name)
        problem = Problem(place, error.rule, error.got, "correct the file")
        raise ExperimentsError(file, [str(problem)]) from None
    except OSError as error:
        reason = error.strerror or str(error)
        problem = Problem("--config-list", "must be a file that can be read", reason, "check it")
        raise ExperimentsError(file, [str(problem)]) from None
    if within and isinstance(found, dict):
        found = found.get(within)
    if not isinstance(found, dict | list) or not found:
        got = repr(found) if found else "nothing"
        rule = "must hold an experiment, such as {config: demo, seeds: 3}, or a list of them"
        raise ExperimentsError(file, [str(Problem(file.name, rule, got, "correct it"))])
    return found


class _ExperimentReader:
    """Reads experiments one after the other, and collects what is wrong about them.

    ``typed`` are the settings that are given for all runs, which nothing may vary.
    """

    def __init__(self, typed: set[str]) -> None:
        self._typed = typed
        self.problems: list[Problem] = []
        self.search: SearchSettings | None = None

    def points(self, given: Any, place: str, *, has_group: bool) -> list[Point]:
        """Return the runs of an experiment; none where it has problems."""
        known = len(self.problems)
        if not isinstance(given, dict):
            rule = "must be a mapping such as {config: demo, overrides: {num_rounds: 5}}"
            self._tell(place or "the file", rule, repr(given), "write one")
            return []
        for key in sorted({str(key) for key in given} - set(_KEYS)):
            near = difflib.get_close_matches(key, _KEYS, n=1)
            remedy = f"use {near[0]}" if near else "put settings below overrides"
            rule = f"must be one of {', '.join(_KEYS)}"
            self._tell(_at(place, key), rule, key, remedy)
        configs = self._configs(given.get(CONFIG), _at(place, CONFIG))
        overrides = dict(flat_settings(self._mapping(given, "overrides", place)))
        axes = [
            *self._grid(given, place),
            *self._zip(given, place),
            *self._seeds(given, place),
        ]
        self._refuse_twice([*overrides], axes, place)
        if given.get("search") is not None:
            self._read_search(given, [*overrides], place)
        if len(self.problems) > known:
            return []
        group = str(given.get("name") or "") if has_group else ""
        return [_point(group, configs, overrides, choices) for choices in product(*axes)]

    def _configs(self, given: Any, place: str) -> tuple[str, ...]:
        names = given if isinstance(given, list) else [] if given is None else [given]
        if all(isinstance(name, str) for name in names):
            return tuple(names)
        rule = "must be a named configuration or a file, or a list of them"
        self._tell(place, rule, repr(given), "write it as after with")
        return ()

    def _mapping(self, given: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
        value = given.get(key)
        if value is None or isinstance(value, dict):
            return {str(name): inner for name, inner in (value or {}).items()}
        rule = "must be a mapping of settings"
        self._tell(_at(place, key), rule, repr(value), f"write {key}: {{num_rounds: 5}}")
        return {}

    def _lists(
        self, given: Mapping[str, Any], key: str, place: str
    ) -> Iterator[tuple[str, list[Any]]]:
        """Yield (dotted path, values) of what varies."""
        for path, values in self._mapping(given, key, place).items():
            here = _at(place, f"{key}.{path}")
            if not isinstance(values, list):
                rule, remedy = "must be a list of values", f"write {path}: [{values}]"
                self._tell(here, rule, repr(values), remedy)
            elif not values:
                self._tell(here, "must have a value", "an empty list", "give some, or leave it out")
            else:
                if path == CONFIG:
                    values = [list(self._configs(value, here)) for value in values]
                yield path, values

    def _grid(self, given: Mapping[str, Any], place: str) -> Iterator[list[_Choice]]:
        for path, values in self._lists(given, "grid", place):
            yield [_choice(path, value) for value in values]

    def _zip(self, given: Mapping[str, Any], place: str) -> Iterator[list[_Choice]]:
        columns = dict(self._lists(given, "zip", place))
        lengths = {path: len(values) for path, values in columns.items()}
        if len(set(lengths.values())) > 1:
            got = " and ".join(f"{length} of {path}" for path, length in lengths.items())
            remedy = "give one value of each for every run"
            self._tell(_at(place, "zip"), "must have lists of one length", got, remedy)
        elif columns:
            rows = zip(*columns.values(), strict=True)
            yield [
                tuple(
                    pair
                    for path, value in zip(columns, row, strict=True)
                    for pair in _choice(path, value)
                )
                for row in rows
            ]

    def _seeds(self, given: Mapping[str, Any], place: str) -> Iterator[list[_Choice]]:
        seeds = given.get("seeds")
        if seeds is None:
            return
        if type(seeds) is int and seeds > 0:
            seeds = list(range(seeds))
        if isinstance(seeds, list) and seeds:
            yield [_choice("seed", seed) for seed in seeds]
        else:
            rule = "must be a number of seeds, or a list of them"
            self._tell(_at(place, "seeds"), rule, repr(seeds), "write seeds: 3 or seeds: [1, 2]")

    def _read_search(self, given: Mapping[str, Any], overrides: Sequence[str], place: str) -> None:
        """Read what chooses the points of the only experiment."""
        others = [key for key in ("grid", "zip", "seeds") if given.get(key)]
        if place or others:
            got = f"one beside {others[0]}" if others else "one in a list"
            rule = "must choose all points of the only experiment of a file"
            self._tell(_at(place, "search"), rule, got, "leave the rest out")
        elif problems := list(search_problems(given["search"])):
            self.problems += problems
        else:
            self.search = SearchSettings.model_validate(given["search"])
            searched = tuple((path, None) for path in self.search.ranges)
            self._refuse_twice(overrides, [[searched]], "search.ranges")

    def _refuse_twice(
        self, overrides: Sequence[str], axes: Sequence[Sequence[_Choice]], place: str
    ) -> None:
        """Refuse a setting that something else overrules in every run."""
        varied = [{path for choice in axis for path, _ in choice} for axis in axes]
        for number, paths in enumerate(varied):
            others = {path for other in varied[number + 1 :] for path in other}
            for where, names in (
                ("overrides", set(overrides)),
                ("what else varies", others),
                ("what is typed after with", self._typed),
            ):
                for path in sorted(path for path in paths if _overlaps(path, names)):
                    rule = f"must vary here alone, and is in {where}, too"
                    self._tell(_at(place, path), rule, path, "leave one of them out")

    def _tell(self, place: str, rule: str, got: str, remedy: str) -> None:
        self.problems.append(Problem(place, rule, got, remedy))


def _at(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _choice(path: str, value: Any) -> _Choice:
    if isinstance(value, Mapping) and value:
        return tuple((f"{path}.{inner}", each) for inner, each in flat_settings(value))
    return ((path, value),)


def _overlaps(path: str, others: set[str]) -> bool:
    """Say whether one of the others is the same setting, its section or in it."""
    return any(f"{a}.".startswith(f"{b}.") for o in others for a, b in ((path, o), (o, path)))


def _point(
    group: str, configs: tuple[str, ...], overrides: Mapping[str, Any], choices: Sequence[_Choice]
) -> Point:
    settings = dict(overrides)
    for path, value in (pair for choice in choices for pair in choice):
        if path == CONFIG:
            configs = (*configs, *value)
        else:
            settings[path] = value
    return Point(group=group, configs=configs, settings=settings)
