"""What each client of a run was and did: its examples, how often it was drawn, what it reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scaling_fl.reporting.report.data import ReportRun

_KNOWN = {
    "round", "client", "tier", "num_examples", "update_norm", "download_bytes", "upload_bytes",
    "seconds", "name",
}  # fmt: skip


@dataclass(kw_only=True)
class ClientSummary:
    """A client over all rounds of a run."""

    client: int
    name: str | None = None
    num_examples: int | None = None
    rounds: int = 0
    """How often it was drawn, and its update counted."""
    failed: int = 0
    """How often it was drawn and left out."""
    last: dict[str, float] = field(default_factory=dict)
    """Metric of its training -> the value of the last round that it was in."""
    norms: list[float] = field(default_factory=list)
    num_bytes: int = 0
    seconds: float = 0.0

    @property
    def update_norm(self) -> float | None:
        """Return the mean norm of its updates."""
        return sum(self.norms) / len(self.norms) if self.norms else None


def summarise(run: ReportRun) -> list[ClientSummary]:
    """Summarise the clients of a run; empty where its record says nothing of them."""
    histograms = (run.partition or {}).get("histograms") or []
    names = (run.partition or {}).get("client_names") or []
    found = {
        client: ClientSummary(client=client, num_examples=sum(histogram))
        for client, histogram in enumerate(histograms)
    }
    for client, name in enumerate(names):
        found.setdefault(client, ClientSummary(client=client)).name = name
    failed = {(row.get("round"), row.get("client")) for row in run.failures}
    last: dict[int, Mapping[str, Any]] = {}
    for row in run.clients:
        is_failed = (row.get("round"), row.get("client")) in failed
        _add(found, row, is_failed=is_failed)
        if not is_failed and "client" in row:
            last[row["client"]] = row
    for client, row in last.items():
        found[client].last = {name: value for name, value in row.items() if name not in _KNOWN}
    for number, other in failed - {(row.get("round"), row.get("client")) for row in run.clients}:
        if other is not None and number is not None:
            found.setdefault(other, ClientSummary(client=other)).failed += 1
    return [found[client] for client in sorted(found)]


def _add(found: dict[int, ClientSummary], row: Mapping[str, Any], *, is_failed: bool) -> None:
    if "client" not in row:
        return
    client: int = row["client"]
    summary = found.setdefault(client, ClientSummary(client=client))
    summary.num_examples = row.get("num_examples", summary.num_examples)
    summary.num_bytes += row.get("download_bytes", 0) + row.get("upload_bytes", 0)
    summary.seconds += row.get("seconds", 0.0)
    if is_failed:
        summary.failed += 1
        return
    summary.rounds += 1
    if row.get("update_norm") is not None:
        summary.norms.append(row["update_norm"])


def metrics_of(clients: Sequence[ClientSummary]) -> list[str]:
    """Name the metrics of training that clients report."""
    return sorted({name for each in clients for name in each.last})
