"""The reports of clients and rounds: plain data that JSON can store."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ClientReport:
    """What one client did in one round.

    ``metrics`` are means over its training, by the task's names. ``failure`` says why the round
    leaves the update out; None if the update counts.
    """

    round: int
    client: int
    num_examples: int
    metrics: dict[str, float]
    update_norm: float = 0.0
    """The norm of the update that arrived; the server fills it in."""
    download_bytes: int
    upload_bytes: int
    seconds: float
    tier: int = 0
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return one flat record of the fields and the metrics."""
        record: dict[str, Any] = asdict(self)
        del record["metrics"]
        if reserved := record.keys() & self.metrics.keys():
            raise ValueError(f"a task's metrics must not be named {', '.join(sorted(reserved))}")
        return record | self.metrics

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "ClientReport":
        """Read a flat record; every name that is not a field is a metric."""
        names = {each.name for each in fields(cls)}
        metrics = {name: value for name, value in record.items() if name not in names}
        values = {name: value for name, value in record.items() if name in names}
        return cls(**values, metrics=metrics)


@dataclass(frozen=True, kw_only=True)
class RoundReport:
    """The results of a round: its metrics by name and the reports of its clients."""

    round: int
    metrics: dict[str, float]
    clients: list[ClientReport] = field(default_factory=list)
    unmoved: str = ""
    """What kept every value although clients were asked: "the global state" or "the adapter"."""
    digest: str = ""
    stopped_by: str = ""
    """The rule that ends the run with this round, and why; empty: none does."""

    @property
    def failures(self) -> list[ClientReport]:
        return [report for report in self.clients if report.failure is not None]
