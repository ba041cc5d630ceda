"""Draw grids of numbers: lines over the columns, or bars for the rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scaling_fl.reporting.grids import Grid
from scaling_fl.reporting.partition_figure import QUIET_COLOUR, TEXT_COLOUR, WIDTH_INCHES, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES_INCHES, _BAR_INCHES = 4.2, 0.24
_MARKS = "osD^vP*X<>"


def draw_lines(path: Path, grid: Grid, *, x: str, y: str) -> None:
    """Draw a line for each row over the columns; the file appears whole."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, _LINES_INCHES), layout="constrained")
    axes = figure.add_subplot()
    for number, row in enumerate(grid.rows):
        places = [i for i, column in enumerate(grid.columns) if (row, column) in grid.values]
        axes.plot(
            places,
            [grid.values[row, grid.columns[i]] for i in places],
            marker=_MARKS[number % len(_MARKS)],
            color=f"C{number % 10}",
            linestyle="-" if number < 10 else "--",
            markersize=5,
            linewidth=1.4,
            label=row,
        )
    axes.set_xticks(range(len(grid.columns)), grid.columns)
    axes.set_xlabel(x, fontsize=10)
    axes.set_ylabel(y, fontsize=10)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9, frameon=False)
    _finish(axes, grid)
    save(figure, path)


def draw_bars(path: Path, grid: Grid, columns: Sequence[str], *, x: str) -> None:
    """Draw the numbers of some columns as bars for each row; the file appears whole."""
    from matplotlib.figure import Figure

    height = 1.2 + _BAR_INCHES * len(columns) * len(grid.rows)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.add_subplot()
    thickness = 0.8 / len(columns)
    for number, column in enumerate(columns):
        rows = [i for i, row in enumerate(grid.rows) if (row, column) in grid.values]
        axes.barh(
            [i + (number - (len(columns) - 1) / 2) * thickness for i in rows],
            [grid.values[grid.rows[i], column] for i in rows],
            height=thickness,
            color=("#4c72b0", "#dd8452")[number % 2],
            label=column,
        )
    axes.axvline(0.0, color=QUIET_COLOUR, linewidth=0.8)
    axes.set_yticks(range(len(grid.rows)), grid.rows)
    axes.invert_yaxis()
    axes.set_xlabel(x, fontsize=10)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9, frameon=False)
    _finish(axes, grid)
    save(figure, path)


def _finish(axes: "Axes", grid: Grid) -> None:
    axes.set_title(grid.title, fontsize=11, loc="left", color=TEXT_COLOUR, wrap=True)
    axes.tick_params(labelsize=9, color=QUIET_COLOUR)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
