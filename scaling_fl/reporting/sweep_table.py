"""What a person sees of a sweep: a live table on a terminal, a line for each change elsewhere."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from scaling_fl.reporting.console import REDRAWS_PER_SECOND, Console
from scaling_fl.reporting.run_rows import main_metric
from scaling_fl.reporting.summary import duration

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_ORDER = ("running", "failed", "pruned", "done", "waiting")
_STYLES = {"running": "bold", "failed": "red", "pruned": "yellow", "done": "green"}
_NAMES = {"done": "finished"}
_MORE_LINES = 6
"""Lines of a screen that are no rows: the header, the rules, the sums and the prompt."""


@dataclass
class SweepRow:
    """A run of a sweep, as the table shows it."""

    key: str
    label: str
    outcome: str
    error: str = ""
    run: str = ""
    round: int = 0
    num_rounds: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    began: float | None = None
    seconds: float | None = None


class SweepTable:
    """Shows the runs of a sweep on a stream, as they are told of."""

    def __init__(self, rows: Sequence[SweepRow], stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self.rows = {row.key: row for row in rows}
        self._console = Console(self._stream)
        self._live: Live | None = None

    def open(self) -> None:
        """Begin to show the table, where it can be redrawn."""
        if not self._console.is_animated:
            return
        from rich.console import Console as RichConsole
        from rich.live import Live

        rich = RichConsole(file=self._stream, force_terminal=True, highlight=False)
        self._live = Live(
            get_renderable=lambda: self.render(rich.height),
            console=rich,
            refresh_per_second=REDRAWS_PER_SECOND,
            transient=True,
        )
        self._live.start()

    def close(self) -> None:
        """Take the table away; lines can still be printed."""
        live, self._live = self._live, None
        if live:
            live.stop()

    def line(self, text: str) -> None:
        """Print a line."""
        if self._live:
            self._live.console.print(text, markup=False, soft_wrap=True)
        else:
            self._console.line(text)

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take in what a slot tells of a run."""
        row = self.rows.setdefault(
            event["key"], SweepRow(event["key"], event["label"], event["outcome"])
        )
        if event["event"] == "round":
            row.round, row.num_rounds = event["round"], event["num_rounds"]
            row.metrics = event["metrics"]
        elif event["event"] == "started":
            row.outcome, row.began = "running", time.monotonic()
            self.line(f"{self._counted(row)} begins: {row.label}")
        else:
            row.outcome, row.error, row.run = (event[name] for name in ("outcome", "error", "run"))
            row.began, row.seconds = None, event["seconds"]
            text = f"is interrupted: {row.label}" if event["is_interrupted"] else _ended(row)
            self.line(f"{self._counted(row)} {text}")

    def note(self, rows: Sequence[SweepRow]) -> None:
        """Take over what the queue says of the runs that others train."""
        for row in rows:
            known = self.rows.setdefault(row.key, row)
            if known.began is None:
                known.outcome, known.error, known.run = row.outcome, row.error, row.run

    def _counted(self, row: SweepRow) -> str:
        numbers = {key: number for number, key in enumerate(self.rows, start=1)}
        return f"[{numbers[row.key]}/{len(self.rows)}]"

    def render(self, height: int) -> "Table":
        """Draw the runs of most interest in so many lines, and the numbers of all."""
        from rich.table import Table

        rows = sorted([*self.rows.values()], key=lambda row: _ORDER.index(row.outcome))
        table = Table(box=None, pad_edge=False, caption=sums(rows), caption_justify="left")
        for name in ("run", "state", "round", "metric", "time"):
            table.add_column(name, justify="left" if name in ("run", "state") else "right")
        for row in rows[: max(1, height - _MORE_LINES)]:
            table.add_row(*_cells(row), style=_STYLES.get(row.outcome, "dim"))
        return table


def sums(rows: Any) -> str:
    """Count the runs by what they have come to."""
    outcomes = [row.outcome for row in rows]
    counted = [
        f"{outcomes.count(name)} {_NAMES.get(name, name)}"
        for name in ("done", "failed", "pruned", "running", "waiting")
        if name in outcomes
    ]
    return f"{len(outcomes)} run{'s' * (len(outcomes) != 1)}: {', '.join(counted) or 'none'}"


def _cells(row: SweepRow) -> list[str]:
    rounds = f"{row.round}/{row.num_rounds}" if row.num_rounds else ""
    seconds = row.seconds if row.began is None else time.monotonic() - row.began
    taken = "" if seconds is None else duration(seconds)
    return [row.label, _NAMES.get(row.outcome, row.outcome), rounds, _metric(row), taken]


def _metric(row: SweepRow) -> str:
    name = main_metric(row.metrics)
    return f"{name.partition('.')[2]} {row.metrics[name]:.4f}" if name else ""


def _ended(row: SweepRow) -> str:
    """Say how a run ended here, in one line."""
    verb = {"done": "finished", "failed": "failed for good", "pruned": "was not worth more rounds"}
    verb["waiting"] = "failed and is tried again"
    parts = [f"{row.round} rounds" if row.round else "", _metric(row)]
    parts += [duration(row.seconds) if row.seconds is not None else "", row.run]
    facts = ", ".join(part for part in parts if part)
    text = f"{verb.get(row.outcome, row.outcome)}: {row.label}" + (f" ({facts})" if facts else "")
    return f"{text}: {row.error}" if row.error and row.outcome != "done" else text
