"""Tables of numbers by two settings, a row for one and a column for the other."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scaling_fl.reporting.folding import fold

WIDTH = 80


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Numbers by row and column; a number that does not exist is missing from ``values``."""

    name: str
    """What its files are named."""
    title: str
    """The question that it answers."""
    corner: str
    """What the names of the rows are."""
    rows: Sequence[str]
    columns: Sequence[str]
    values: Mapping[tuple[str, str], float]
    """(row, column) -> number."""
    commands: Mapping[tuple[str, str], str]
    """(row, column) -> the command that comes to the number."""
    formats: Mapping[str, str]
    """Column -> how its numbers are written, such as ``+.1f``."""
    notes: Sequence[str]
    """Sentences below the table."""


def render(grid: Grid) -> str:
    """Write a grid as a table of at most 80 columns."""
    first = max(len(name) for name in (grid.corner, *grid.rows))
    room = (WIDTH - first) // len(grid.columns)
    width = min(room, max(map(len, grid.columns)) + 3)

    def line(name: str, cells: Callable[[str], str]) -> str:
        return f"{name:<{first}}" + "".join(f"{cells(column):>{width}}" for column in grid.columns)

    lines = [*fold(grid.title, WIDTH).split("\n"), "", line(grid.corner, str)]
    lines += [line(row, lambda column, row=row: _cell(grid, row, column)) for row in grid.rows]  # type: ignore[misc]
    return "\n".join([*lines, "", *(fold(note, WIDTH) for note in grid.notes)])


def _cell(grid: Grid, row: str, column: str) -> str:
    value = grid.values.get((row, column))
    return "-" if value is None else format(value, grid.formats[column])


def write_csv(grid: Grid, folder: Path) -> Path:
    """Write a line for each number, with the command that comes to it."""
    path = folder / f"{grid.name}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([grid.corner, "column", "value", "command"])
        for (row, column), value in grid.values.items():
            writer.writerow([row, column, value, grid.commands[row, column]])
    return path
