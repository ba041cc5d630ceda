"""Small tracked runs to test with: journals folded into records, and started run folders."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scaling_fl.runtime.record.journal import JobRecord, fold
from scaling_fl.runtime.tracking.run_folder import RunFolder

MOMENT = "2026-11-21T08:00:{:02}.123456+00:00"


def round_event(number: int, *, loss: float | None = None, clients: int = 2) -> dict[str, Any]:
    loss = 1.0 / number if loss is None else loss
    rows = [
        {
            "client": client,
            "tier": 0,
            "num_examples": 10 + client,
            "loss": loss,
            "accuracy": 0.5,
            "update_norm": 1.25,
            "download_bytes": 100 + client,
            "upload_bytes": 200 + client,
            "seconds": 0.5,
        }
        for client in range(clients)
    ]
    metrics = {"train.loss": loss, "validation.accuracy": number / 100, "bytes.total": 602.0}
    moment = MOMENT.format(number % 60)
    return {
        "time": moment,
        "event": "round",
        "round": number,
        "metrics": metrics,
        "clients": rows,
        "digest": f"digest-{number}",
    }


def record_of(num_rounds: int, **options: Any) -> JobRecord:
    start = {"event": "start", "uid": "uid-1", "job_name": "job"}
    return fold([start, *(round_event(n, **options) for n in range(1, num_rounds + 1))])


def start(folder: RunFolder, *, config: dict[str, Any] | None = None) -> RunFolder:
    """Announce a run and put its start on record."""
    announce(folder, config=config).open()
    return folder


def announce(folder: RunFolder, *, config: dict[str, Any] | None = None) -> RunFolder:
    """Send the event with which Sacred starts a run, with one source file."""
    base = Path(folder.basedir).parent
    (base / "train.py").write_text("print('the program')\n")
    folder.started_event(
        ex_info={
            "name": "scaling_fl",
            "base_dir": str(base),
            "sources": [("train.py", "digest")],
            "dependencies": ["numpy==2.4.6"],
            "repositories": [],
            "mainfile": "train.py",
        },
        command="main",
        host_info={"hostname": "here", "cpu": "one"},
        start_time=now(),
        config=config or {"seed": 0, "site_ids": [0, 1]},
        meta_info={"command": "main", "options": {"--force": False}},
        _id=None,
    )
    return folder


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)  # As Sacred gives times: in UTC, without a zone.


def seconds_of(time: str) -> float:
    """Read a journaled time as seconds since 1970."""
    return datetime.fromisoformat(time).timestamp()


def milliseconds_of(time: str) -> int:
    return round(1000 * seconds_of(time))
