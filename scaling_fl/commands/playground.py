"""The command ``scripts/merging_playground.py``: four questions about merges, by small real runs.

Every number is what one training command comes to; the tables and their CSV files say which.
"""

import time
from functools import partial
from pathlib import Path

from scaling_fl.commands.caller import script
from scaling_fl.commands.endings import end, raise_on_signals, show, stage
from scaling_fl.commands.playground_questions import (
    Question,
    followed,
    questions_of,
    runs_of,
    write_files,
)
from scaling_fl.config import Config
from scaling_fl.jobs.here import drop_checkpoints, name_of, record_of, run_all
from scaling_fl.jobs.job import check_outlives_container
from scaling_fl.reporting.grid_figure import draw_bars, draw_lines
from scaling_fl.reporting.grids import Grid, render, write_csv
from scaling_fl.runtime.storage.base import explained


def main(*, out: Path, seed: int, is_quick: bool, num_processes: int) -> int:
    """Ask the questions, print the tables and draw them into ``out``; returns the exit code."""
    raise_on_signals()
    action = partial(_run, out, seed=seed, is_quick=is_quick, num_processes=num_processes)
    return end(action)


def _run(out: Path, *, seed: int, is_quick: bool, num_processes: int) -> None:
    check_outlives_container(out, "--out")
    began = time.monotonic()
    with explained(f"write into {out}"):
        (out / "jobs").mkdir(parents=True, exist_ok=True)
        files = write_files(out, seed, is_quick=is_quick)
    playground = Playground(out, num_processes)
    follow = followed(files["lora"])
    playground.play([follow])
    questions = questions_of(files, out / "jobs" / name_of(follow))
    playground.play([run for question in questions for run in runs_of(question).values()])
    for question in questions:
        grid = playground.answer(question)
        with explained(f"write into {out}"):
            write_csv(grid, out)
            _draw(grid, out)
        show(f"{render(grid)}\n")
    show(f"tables and pictures: {out}; {time.monotonic() - began:.0f} s")


class Playground:
    """The runs of a folder, and what they have come to."""

    def __init__(self, out: Path, num_processes: int) -> None:
        self._jobs, self._num_processes = out / "jobs", num_processes

    def play(self, configs: list[Config]) -> None:
        """Run what has not been run; only a run of several rounds keeps its states."""
        runs = list({name_of(config): config for config in configs}.values())
        run_all(
            runs,
            self._jobs,
            num_processes=self._num_processes,
            done=lambda number, total: stage(f"run {number} of {total} is done"),
        )
        for config in runs:
            if config.num_rounds == 1:
                drop_checkpoints(config, self._jobs)

    def answer(self, question: Question) -> Grid:
        """Read the numbers of a question from its runs."""
        runs = runs_of(question)
        first = next(iter(question.rows))
        values = {}
        for (row, name), config in runs.items():
            column = question.columns[name]
            value = column.read(record_of(config, self._jobs))
            if value is not None and column.is_gain:
                value -= column.read(record_of(runs[first, name], self._jobs)) or 0.0
            if value is not None:
                values[row, name] = value
        refused = [row for row in question.rows if not any(row == found for found, _ in values)]
        return Grid(
            name=question.name,
            title=question.title,
            corner=question.corner,
            rows=[row for row in question.rows if row not in refused],
            columns=list(question.columns),
            values=values,
            commands={(row, name): _command(question, row, name) for row, name in values},
            formats={name: column.shown for name, column in question.columns.items()},
            notes=[*question.notes, *([f"refused here: {', '.join(refused)}"] if refused else [])],
        )


def _command(question: Question, row: str, column: str) -> str:
    words = [*question.columns[column].words, *question.rows[row]]
    return f"{script('train_federated.py')} with {' '.join(words)}"


def _draw(grid: Grid, out: Path) -> None:
    path = out / f"{grid.name}.png"
    match grid.name:
        case "gain":
            gains = [column for column in grid.columns if column.endswith("gain")]
            draw_bars(path, grid, gains, x="points of accuracy above the mean's")
        case "over_rounds":
            draw_lines(path, grid, x="rounds of the mean before", y="points above the mean")
        case "distance":
            draw_lines(path, grid, x="local epochs", y="distance per length")
        case _:
            draw_lines(path, grid, x="", y="accuracy in %")
