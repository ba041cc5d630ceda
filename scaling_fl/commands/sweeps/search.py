"""The search of a sweep: points are added to its queue, by what the runs before have come to."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scaling_fl.commands.sweeps.check import Sweep, check_point
from scaling_fl.commands.sweeps.runs import is_current, read_words, run_of
from scaling_fl.config.conditions import value_at
from scaling_fl.core.errors import UserError
from scaling_fl.reporting.comparison import falls
from scaling_fl.reporting.run_rows import main_metric
from scaling_fl.sweeps.entry import Entry
from scaling_fl.sweeps.queue import Queue
from scaling_fl.sweeps.search import Point, Trial, check_search, is_hopeless, next_point
from scaling_fl.sweeps.search_settings import holds, num_points


class SweepSearch:
    """Adds points to the queue of a sweep as they are needed, and prunes runs."""

    def __init__(self, queue: Queue, sweep: Sweep) -> None:
        assert sweep.search
        check_search()
        self._queue, self._sweep, self._search = queue, sweep, sweep.search
        self.num_trials = int(min(self._search.trials, num_points(self._search)))
        self._over: dict[str, Trial] = {}
        self._is_mine: dict[str, bool] = {}
        self._metric = self._search.metric

    def entries(self) -> list[Entry]:
        """List the runs of the queue that are trials of this search, in the order of their points.

        Runs of other settings, other code or other data are none.
        """
        return [entry for entry in self._queue.entries() if self._is_trial(entry)]

    @property
    def num_runs(self) -> int:
        """How many runs the queue will come to have that can be trained here."""
        others = [e for e in self._queue.entries() if is_current(e) and not self._is_trial(e)]
        return self.num_trials + len(others)

    def fill(self, num_slots: int) -> None:
        """Have as many runs wait or run as there are slots, until all points were chosen."""
        entries = self.entries()
        for _ in range(num_slots - sum(not entry.is_over for entry in entries)):
            if len(entries) < self.num_trials:
                self._add(self._trials(entries))
                entries = self.entries()

    def hear(self, event: Mapping[str, Any]) -> None:
        """Prune a run that a slot tells of, if its last evaluation is hopeless."""
        if not self._search.prune or event["event"] != "round" or not event["metrics"]:
            return
        entries = self.entries()
        number = next((n for n, each in enumerate(entries) if each.key == event["key"]), None)
        if number is None:
            return
        trials = self._trials(entries)
        if trials[number].outcome == "running" and is_hopeless(
            self._search, trials, number, is_less_better=self._is_less_better
        ):
            self._queue.prune(event["key"])

    def best(self) -> str | None:
        """Say which point has come out best; None where none was evaluated."""
        entries = self.entries()
        found = [
            (trial.values[max(trial.values)], entry)
            for trial, entry in zip(self._trials(entries), entries, strict=True)
            if trial.outcome == "done"
        ]
        if not found:
            return None
        choose = min if self._is_less_better else max
        value, entry = choose(found, key=lambda pair: pair[0])
        return f"best of {len(found)}: {entry.label}, {self._metric} {value:.4f}"

    @property
    def _is_less_better(self) -> bool:
        return falls(self._metric or "")

    def _add(self, trials: Sequence[Trial]) -> None:
        again = 0
        while True:
            point = next_point(
                self._search, trials, is_less_better=self._is_less_better, again=again
            )
            if self._queue.add([check_point(self._sweep, point)]):
                return
            again += 1

    def _trials(self, entries: Sequence[Entry]) -> list[Trial]:
        return [self._trial(entry) for entry in entries]

    def _trial(self, entry: Entry) -> Trial:
        if entry.key in self._over:
            return self._over[entry.key]
        values = self._values(entry)
        outcome = "running" if entry.outcome == "waiting" else entry.outcome
        if outcome == "done" and not values:
            outcome = "failed"
        trial = Trial(point=self._point(entry), outcome=outcome, values=values)
        if entry.is_over:
            self._over[entry.key] = trial
        return trial

    def _values(self, entry: Entry) -> dict[int, float]:
        run = run_of(read_words(entry.words).config())
        if run is None:
            return {}
        curves = run.record.metrics
        self._metric = self._metric or main_metric(curves)
        if entry.outcome == "done" and self._metric not in curves:
            known = [name for name in curves if name.startswith("validation.")]
            raise UserError(
                f"search.metric must be a metric that the runs report, got {self._metric}; use "
                f"one of {', '.join(sorted(known))}."
            )
        if not self._metric or self._metric not in curves:
            return {}
        curve = curves[self._metric]
        pairs = zip(curve["steps"], curve["values"], strict=True)
        return {number: value for number, value in pairs if math.isfinite(value)}

    def _is_trial(self, entry: Entry) -> bool:
        """Say whether a run is what this search makes of its point."""
        if entry.key not in self._is_mine:
            point = self._point(entry)
            is_inside = holds(self._search, point)
            self._is_mine[entry.key] = (
                is_inside and check_point(self._sweep, point).key == entry.key
            )
        return self._is_mine[entry.key]

    def _point(self, entry: Entry) -> Point:
        config = read_words(entry.words).config()
        return {path: value_at(config, path) for path in self._search.ranges}
