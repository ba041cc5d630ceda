"""What a search chooses its points from, as a file of experiments says below ``search``."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from scaling_fl.config import Problem
from scaling_fl.config.base import Section

Scalar = bool | int | float | str


class Range(Section):
    """Numbers between two ends, both of which belong to it."""

    low: int | float
    high: int | float
    log: bool = False
    """Draw orders of magnitude alike."""

    @model_validator(mode="after")
    def _has_numbers(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"must have low below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"must have low above 0 with log, got {self.low}")
        return self


class SearchSettings(Section):
    """What a search changes, and how long it goes on."""

    ranges: Annotated[dict[str, Range | list[Scalar]], Field(min_length=1)]
    """The path of a setting -> its range, or the list of its values."""
    trials: Annotated[int, Field(ge=1)]
    """How many points are tried."""
    metric: str | None = None
    """What is searched for; by default the metric of the task."""
    prune: bool = False
    """End a run whose last evaluation is below the median of the others after the same round."""
    seed: int = 1
    """Of the points that are chosen."""


def num_points(search: SearchSettings) -> float:
    """Count the points that the ranges hold."""
    counts = [_num_values(values) for values in search.ranges.values()]
    return math.prod(counts)


def _num_values(values: Range | list[Scalar]) -> float:
    if isinstance(values, list):
        return len(set(map(repr, values)))
    is_whole = isinstance(values.low, int) and isinstance(values.high, int)
    return values.high - values.low + 1 if is_whole else math.inf


def holds(search: SearchSettings, point: Mapping[str, Any]) -> bool:
    """Say whether a point is one of those that may be chosen."""
    return all(_holds(values, point[path]) for path, values in search.ranges.items())


def _holds(values: Range | list[Scalar], value: Any) -> bool:
    if isinstance(values, list):
        return value in values
    return isinstance(value, int | float) and values.low <= value <= values.high


def search_problems(given: Any) -> Iterator[Problem]:
    """Say what is wrong about a search."""
    try:
        SearchSettings.model_validate(given)
    except ValidationError as error:
        for each in error.errors():
            path = ".".join(["search", *map(str, each["loc"])])
            told = each["msg"].removeprefix("Value error, ")
            rule = f"must be as docs/comparing.md says: {told[0].lower()}{told[1:]}"
            yield Problem(path, rule, repr(each["input"]), "correct it")
