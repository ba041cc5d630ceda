"""The bars of a run, or one line: its rounds and budgets, and how far this round's clients are."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from scaling_fl.reporting.summary import client_title

if TYPE_CHECKING:
    from rich.console import RenderableType

BAR_WIDTH = 20  # so that all fits into 80 columns
_ADDED_UP = "time.round_seconds"
"""A metric of single rounds; those of the other budgets tell what all rounds have come to."""


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What may end the run before its last round: at most so much of a metric."""

    setting: str
    metric: str
    most: float
    spent: float

    def after(self, metrics: Mapping[str, float]) -> "Spending":
        """Return the budget after a round with these metrics."""
        if self.metric not in metrics:
            return self
        before = self.spent if self.metric == _ADDED_UP else 0.0
        return replace(self, spent=before + metrics[self.metric])

    @property
    def text(self) -> str:
        return f"{min(self.spent / self.most, 1.0):.0%} of {self.setting}"

    def rounds_left(self, begun: "Spending", num_rounds: int) -> float:
        """Return the rounds that are left at the pace of ``num_rounds`` since it was ``begun``."""
        pace = (self.spent - begun.spent) / num_rounds
        return max(0.0, self.most - self.spent) / pace if pace > 0 else float("inf")


class Picture:
    """The state that the bars show.

    The thread that redraws holds the display's own lock, so nothing here may wait for another:
    rows are replaced as a whole and read without a lock.
    """

    def __init__(self) -> None:
        self.stage = ""
        self.client_names: Sequence[str] = ()
        self._round = self._num_rounds = self._done = self._first = self._num_done = 0
        self._rows: list[list[Any]] = []
        self._begun: list[Spending] = []
        self._budgets: list[Spending] = []
        self._began = time.time()

    def resume(self, event: Mapping[str, Any], num_rounds: int) -> None:
        """Start counting: the pace of a resumed run is that of its own rounds."""
        self._began = _seconds(event.get("time"))
        self._first = self._done = self._round = event["round"]
        self._num_rounds, self.stage = num_rounds, ""
        self._begun = self._budgets = [Spending(**row) for row in event.get("budgets", ())]

    def progress(self, event: Mapping[str, Any], num_rounds: int) -> None:
        number = event["round"]
        if number <= self._done:
            return  # a round is told to be done by worker 0, and others may be late
        if number != self._round:
            self._begin(number, num_rounds)
        self._rows, self._num_done = event["clients"], event["num_done"]

    def finish(self, number: int, num_rounds: int, metrics: Mapping[str, float]) -> None:
        if number > self._round:
            self._begin(number, num_rounds)
        self._done = number
        self._budgets = [budget.after(metrics) for budget in self._budgets]
        if number == self._round:  # else another worker is at the next round already
            self._rows, self._num_done = [], 0

    def _begin(self, round: int, num_rounds: int) -> None:
        self._round, self._num_rounds, self.stage = round, num_rounds, ""
        self._num_done, self._rows = 0, []

    def line(self) -> str:
        """Say in one line what is under way; empty when nothing is."""
        if self.stage:
            return f"still {self.stage}"
        if self._done >= self._num_rounds:
            return ""
        parts = [f"round {self._done + 1}/{self._num_rounds}"]
        if self._num_done:
            parts.append(_clients_done(self._num_done, is_last=not self._rows))
        parts += [
            f"{self._title(client)} at step {step}/{num_steps}, loss {loss:.4f}"
            for client, step, num_steps, loss in self._rows
        ]
        parts += [budget.text for budget in self._budgets]
        return " | ".join([*parts, self._pace()])

    def render(self) -> "RenderableType":
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.table import Table

        if self.stage or not self._num_rounds:
            return Spinner("line", self.stage)
        table = Table.grid(padding=(0, 1))
        self._add_bar(table, "rounds", self._done, self._num_rounds, self._pace())
        for budget in self._budgets:
            self._add_share(table, budget)
        for client, step, num_steps, loss in self._rows:
            self._add_bar(table, f"  {self._title(client)}", step, num_steps, f"loss {loss:.4f}")
        if self._num_done:
            # Below the table, whose first column would otherwise become as wide.
            return Group(table, f"  {_clients_done(self._num_done, is_last=not self._rows)}")
        return table

    def _title(self, client: int) -> str:
        return client_title(client, dict(enumerate(self.client_names)).get(client))

    def _add_bar(self, table: Any, name: str, done: int, total: int, note: str) -> None:
        from rich.progress_bar import ProgressBar

        bar = ProgressBar(
            total, done, width=BAR_WIDTH, complete_style="cyan", finished_style="green"
        )
        table.add_row(name, bar, f"{done}/{total}", note)

    def _add_share(self, table: Any, budget: Spending) -> None:
        from rich.progress_bar import ProgressBar

        share, _, of = budget.text.partition(" ")
        bar = ProgressBar(budget.most, budget.spent, width=BAR_WIDTH, complete_style="yellow")
        table.add_row("  budget", bar, share, of)

    def _pace(self) -> str:
        seconds, rounds = max(0.0, time.time() - self._began), self._done - self._first
        text = f"{_clock(seconds)} so far"
        if rounds:
            # The time of whole rounds is known only when they end; until then this is a guess.
            pairs = zip(self._budgets, self._begun, strict=True)
            by_budget = (budget.rounds_left(begun, rounds) for budget, begun in pairs)
            left = seconds / rounds * min([self._num_rounds - self._done, *by_budget])
            text += f", about {_clock(left)} left"
        return text


def _clients_done(number: int, *, is_last: bool) -> str:
    waits = ", merging and evaluating" if is_last else ""
    return f"{number} client{'s' * (number > 1)} done{waits}"


def _seconds(moment: str | None) -> float:
    """Turn the time of an event into seconds since 1970; without one it happens now."""
    try:
        return datetime.fromisoformat(moment).timestamp() if moment else time.time()
    except ValueError:
        return time.time()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
