"""What tells the runs of a sweep from each other, in a few words."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from scaling_fl.config.typed import typed_text
from scaling_fl.sweeps.experiments import Point


def label_points(points: Sequence[Point]) -> list[str]:
    """Name every run by what is not the same in all of them; a single run by where it starts.

    Runs of an experiment that has a name are told apart from each other alone.
    """
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.group, []).append(point)
    return [_label(point, *_differences(groups[point.group])) for point in points]


def _differences(points: Sequence[Point]) -> tuple[list[str], bool]:
    """Find the settings in which some runs differ, and whether they start from different files."""
    paths = dict.fromkeys(path for point in points for path in point.settings)
    differing = [
        path
        for path in paths
        if any(_value(point, path) != _value(points[0], path) for point in points)
    ]
    return differing, any(point.configs != points[0].configs for point in points)


def _label(point: Point, differing: Sequence[str], has_configs: bool) -> str:
    stems = [PurePath(name).stem for name in point.configs]
    parts = [point.group, *(stems if has_configs else [])]
    parts += [
        f"{path}={typed_text(path, point.settings[path])}"
        for path in point.settings
        if path in differing
    ]
    return " ".join(part for part in parts if part) or " ".join(stems) or "the run"


def _value(point: Point, path: str) -> tuple[bool, Any]:
    return path in point.settings, point.settings.get(path)
