"""The reports of clients and rounds: plain data, as JSON can hold them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ClientReport:
    """What one client did in one round.

    ``metrics`` are means over its training, by the names that the task gives them. ``failure`` says
    why the update was left out; None if the update counts.
    """

    round: int
    client: int
    num_examples: int
    metrics: dict[str, float]
    update_norm: float = 0.0
    """Of the update as it arrived; the server fills it in."""
    download_bytes: int
    upload_bytes: int
    seconds: float
    tier: int = 0
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return one flat record, in which the metrics stand beside the fields."""
        record: dict[str, Any] = asdict(self)
        del record["metrics"]
        if taken := record.keys() & self.metrics.keys():
            raise ValueError(f"a task's metrics must not be named {', '.join(sorted(taken))}")
        return record | self.metrics

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "ClientReport":
        """Read a flat record; every name that is not a field is a metric."""
        names = {each.name for each in fields(cls)}
        metrics = {name: value for name, value in record.items() if name not in names}
        own = {name: value for name, value in record.items() if name in names}
        return cls(**own, metrics=metrics)


@dataclass(frozen=True, kw_only=True)
class RoundReport:
    """What a round came to: metrics by name, the clients' reports, and who was left out."""

    round: int
    metrics: dict[str, float]
    clients: list[ClientReport] = field(default_factory=list)
    digest: str = ""

    @property
    def failures(self) -> list[ClientReport]:
        return [report for report in self.clients if report.failure is not None]
