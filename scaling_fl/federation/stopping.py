"""Rules that end a run after a round, and before its last one.

Each rule looks at what the whole job has come to, whatever starts it took. So a job that was
interrupted, or that had ended by another rule, goes on as if nothing had happened.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scaling_fl.core.exchange import Exchange
from scaling_fl.core.state import GlobalState

SECONDS = "time.round_seconds"
Metrics = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a job has come to after a round, as rules see it."""

    round: int = 0
    values: Sequence[float] = ()
    """The watched metric in the rounds that are due to be evaluated; one may not be finite."""
    seconds: float = 0.0
    """The time of all rounds together."""
    next_bytes: Callable[[], int] = lambda: 0
    """Tells the bytes of the job, as they would be after one more round."""


class Limit(NamedTuple):
    """The most that a job may come to of what a metric of its rounds tells."""

    metric: str
    most: float

    def spent(self, past: Mapping[int, Metrics]) -> float:
        """Return what the rounds have come to: all seconds together, or the last value."""
        rounds = (past[number] for number in sorted(past))
        values = [metrics[self.metric] for metrics in rounds if self.metric in metrics]
        return math.fsum(values) if self.metric == SECONDS else values[-1] if values else 0.0


Rule = Callable[[Course], str]
"""Says why a run ends here, as the words in brackets after the rule; empty: it goes on."""


def reach(metric: str, target: float, *, is_loss: bool) -> Rule:
    """End when the newest value is at least the target, or at most for a loss."""

    def rule(course: Course) -> str:
        value = course.values[-1] if course.values else math.nan
        is_reached = value <= target if is_loss else value >= target
        return f"{metric} is {value:.4f}" if is_reached else ""

    return rule


def wait_for_gain(metric: str, patience: int, min_gain: float, *, is_loss: bool) -> Rule:
    """End when so many values have not gained more than ``min_gain`` over the best before them."""

    def rule(course: Course) -> str:
        if count_without_gain(course.values, min_gain, is_loss=is_loss) < patience:
            return ""
        evaluations = f"{patience} evaluation{'s' * (patience > 1)}"
        return f"{metric} has not gained in {evaluations}"

    return rule


def count_without_gain(values: Sequence[float], min_gain: float, *, is_loss: bool) -> int:
    """Count the values since the one that was the last to gain more than ``min_gain``."""
    best, waited = -math.inf, -1
    for value in values:
        score = -value if is_loss else value
        waited += 1
        if math.isfinite(score) and score - min_gain > best:
            best, waited = score, 0
    return max(0, waited)


def keep_to_rounds(num_rounds: int, epsilon: Callable[[int], float]) -> Rule:
    """End after the last round whose epsilon is allowed; ``epsilon`` is that of so many rounds."""

    def rule(course: Course) -> str:
        if course.round < num_rounds:
            return ""
        return f"one more round would make it {epsilon(course.round + 1):.4g}"

    return rule


def keep_to_bytes(most: int) -> Rule:
    """End before the round that would take the job above so many bytes."""

    def rule(course: Course) -> str:
        wanted = course.next_bytes()
        return f"one more round would make it {wanted:,} bytes" if wanted > most else ""

    return rule


def keep_to_seconds(most: float) -> Rule:
    """End after the round with which all rounds have taken so long; nobody knows it before."""

    def rule(course: Course) -> str:
        return f"the rounds took {course.seconds:.1f} s" if course.seconds >= most else ""

    return rule


class Stopping:
    """Asks the rules after every round; the first worker decides, and all of them do the same.

    ``rules`` go by the setting that gives each, such as ``stop_when.patience=3``. The ``metric``
    counts in the rounds that ``is_due`` says. ``next_bytes`` tells the bytes of the round after a
    state. ``limits``, by setting as well, are those that a person can see approach. What a rule
    looks at is the state, released metrics and, without noise, times. So with noise the end tells
    nothing that the rounds before it do not tell.
    """

    def __init__(
        self,
        exchange: Exchange,
        rules: Mapping[str, Rule] | None = None,
        *,
        metric: str = "",
        is_due: Callable[[int], bool] = lambda number: True,
        next_bytes: Callable[[GlobalState], int] = lambda state: 0,
        limits: Mapping[str, Limit] | None = None,
    ) -> None:
        self._exchange, self._rules = exchange, rules or {}
        self._limits, self._spent = limits or {}, dict[str, float]()
        self._metric, self._is_due, self._next_bytes = metric, is_due, next_bytes
        self._values: list[float] = []
        self._seconds: list[float] = []

    def resume(self, state: GlobalState, past: Callable[[], Mapping[int, Metrics]]) -> str:
        """Take in the rounds of earlier starts, and say which rule has ended the job already.

        ``past`` returns the metrics of each round up to that of ``state``; only worker 0 needs
        them.
        """
        if not self._rules or not state.round:
            return ""
        rounds = past()
        for number, metrics in sorted(rounds.items()):
            self._take_in(number, metrics)
        self._spent = {name: limit.spent(rounds) for name, limit in self._limits.items()}
        return self._ask(state)

    @property
    def budgets(self) -> list[dict[str, Any]]:
        """The limits, and what earlier starts have spent, as the journal holds them."""
        return [
            {"setting": name, **limit._asdict(), "spent": self._spent.get(name, 0.0)}
            for name, limit in self._limits.items()
        ]

    def after(self, state: GlobalState, metrics: Metrics) -> str:
        """Say which rule ends the run after the round of ``state``, and why; empty: none does."""
        self._take_in(state.round, metrics)
        return self._ask(state)

    def _take_in(self, number: int, metrics: Metrics) -> None:
        if self._metric in metrics and self._is_due(number):
            self._values.append(metrics[self._metric])
        self._seconds.append(metrics.get(SECONDS, 0.0))

    def _ask(self, state: GlobalState) -> str:
        if not self._rules:
            return ""
        mine = [{"stopped_by": self._decide(state)}] if self._exchange.rank == 0 else []
        (told,) = self._exchange.gather(mine)
        return str(told["stopped_by"])

    def _decide(self, state: GlobalState) -> str:
        course = Course(
            round=state.round,
            values=self._values,
            seconds=math.fsum(self._seconds),
            next_bytes=lambda: state.total_bytes + self._next_bytes(state),
        )
        reasons = ((name, rule(course)) for name, rule in self._rules.items())
        return next((f"{name} ({reason})" for name, reason in reasons if reason), "")
