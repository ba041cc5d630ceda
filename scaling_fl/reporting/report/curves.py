"""Curves to be drawn: the mean of each group with its lowest and highest run, thinned."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scaling_fl.core.metric_names import is_of_all
from scaling_fl.reporting.comparison import BYTES, EPSILON, SECONDS
from scaling_fl.reporting.report.data import ReportRun
from scaling_fl.reporting.report.groups import RunGroup

MAX_POINTS = 50
SHOWN = ("validation.", "train.", "download.", "update.")
MAX_METRICS = 12
AXES = (BYTES, SECONDS, EPSILON)
Columns = dict[str, list[Any]]


def metrics_to_draw(runs: Sequence[ReportRun]) -> list[str]:
    """Choose the metrics that have a chart: those of the whole model, the compared one first."""
    names = dict.fromkeys(run.metric for run in runs if run.metric)
    for prefix in SHOWN:
        found = {name for run in runs for name in run.curves if name.startswith(prefix)}
        names |= dict.fromkeys(sorted(name for name in found if is_of_all(name)))
    return list(names)[:MAX_METRICS]


def drawn_curves(groups: Sequence[RunGroup], metric: str) -> tuple[Columns, int]:
    """Make the points of a metric, and tell how many evaluated rounds each drawn one stands for.

    Returns columns: group (its index), round, bytes, seconds, epsilon (means over its runs, None
    where not recorded), mean, low and high. Only rounds that all runs of a group have are drawn:
    a mean over ever fewer runs would be another quantity.
    """
    names = ("group", "round", *AXES, "mean", "low", "high")
    columns: Columns = {name: [] for name in names}
    step = 1
    for index, group in enumerate(groups):
        curves = [dict(zip(*run.curves[metric], strict=True)) for run in group.runs
                  if metric in run.curves]  # fmt: skip
        if len(curves) < len(group.runs):
            continue
        rounds = sorted(set.intersection(*map(set, curves)))
        thinned, every = thin(rounds)
        step = max(step, every)
        for number in thinned:
            values = [curve[number] for curve in curves]
            point = [index, number, *(_amount(group, axis, number) for axis in AXES)]
            point += [_mean(values), _short(min(values)), _short(max(values))]
            for name, value in zip(names, point, strict=True):
                columns[name].append(value)
    return columns, step


def thin(rounds: Sequence[int]) -> tuple[list[int], int]:
    """Keep every n-th round and the last one; nothing is averaged."""
    step = max(1, math.ceil(len(rounds) / MAX_POINTS))
    kept = list(rounds[::step])
    return [*kept, *[number for number in rounds[-1:] if number not in kept[-1:]]], step


def _amount(group: RunGroup, axis: str, number: int) -> float | None:
    found = [run.measured.spent.get(axis, {}).get(number) for run in group.runs]
    known = [amount for amount in found if amount is not None]
    return _mean(known) if len(known) == len(found) else None


def _mean(values: Sequence[float]) -> float | None:
    return _short(math.fsum(values) / len(values)) if values else None


def _short(value: float) -> float | None:
    """Shorten a number to what can be seen; None is a gap in the curve."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def axes_of(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Name the axes that some point has a place on, rounds aside."""
    return [axis for axis in AXES if any(value is not None for value in columns[axis])]
