"""What the report knows of a run: plain values, wherever they were read from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scaling_fl.reporting.comparison import MeasuredRun
from scaling_fl.reporting.run_rows import RunRow

Curve = tuple[Sequence[int], Sequence[float]]
"""Rounds, and the value of each."""
ENDED = ("COMPLETED", "DEGRADED")
"""How runs end whose results count; what others came to depends on when they stopped."""


@dataclass(frozen=True, kw_only=True)
class CodeState:
    """The code that computed a run; None where its record does not say."""

    commit: str | None
    is_dirty: bool | None
    sources: str | None
    """A hash of all source files as they were."""
    versions: Sequence[str] = ()
    """Of the libraries, such as ``torch==2.13.0``."""


@dataclass(frozen=True, kw_only=True)
class ReportRun:
    """A run, as it is reported."""

    row: RunRow
    metric: str | None
    """The metric that it is compared by."""
    measured: MeasuredRun
    curves: Mapping[str, Curve]
    """Metric -> its values by round."""
    clients: Sequence[Mapping[str, Any]] = ()
    """What each client did in each round; empty where that is not recorded."""
    failures: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[Mapping[str, Any]] = ()
    attempts: Sequence[Mapping[str, Any]] = ()
    partition: Mapping[str, Any] | None = None
    """Who owns which examples; None where that is not recorded."""
    baseline: Mapping[str, float] = field(default_factory=dict)
    """Metric -> what ignoring the input would reach on the test examples."""
    num_test: int | None = None
    code: CodeState | None = None
    folder: str | None = None
    """Its folder, absolute."""
    checkpoint: str | None = None
    """The place of its last checkpoint that is still there."""

    @property
    def is_ended(self) -> bool:
        """Whether it came to its end, so that its result counts."""
        return self.row.status in ENDED

    @property
    def ending(self) -> str:
        """Say how it ended."""
        rounds = f"{self.row.rounds} of {self.row.num_rounds or '?'} rounds"
        parts = [
            f"{self.row.status}, {rounds}",
            self.row.stopped_by and f"ended by {self.row.stopped_by}",
        ]
        return "; ".join(part for part in (*parts, self.row.message) if part)
