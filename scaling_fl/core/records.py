"""What the parts of a round tell each other; all of it is plain data that JSON can carry."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ClientReport:
    """What one client did in one round; ``failure`` says why its update was left out, if it was."""

    round: int
    client: int
    num_examples: int
    loss: float
    accuracy: float
    update_norm: float = 0.0
    """Of the update as it arrived; the server fills it in."""
    download_bytes: int
    upload_bytes: int
    seconds: float
    tier: int = 0
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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
