"""A run of a sweep as its queue has it, and what becomes of it: plain values and steps."""

import os
import socket
from dataclasses import dataclass, replace
from typing import Literal

Outcome = Literal["waiting", "running", "done", "failed", "pruned"]
FINAL = ("done", "failed", "pruned")
TO_RETRY = ("failed", "pruned")
"""What a user may have wait again; a run that is done meanwhile is not run twice."""
MAX_FAILURES = 3
"""A first try and two more."""
MAX_DEATHS = 3
"""So often a worker may die in a run with no round finished in between."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run of a sweep."""

    key: str
    """Its fingerprint, 64 hexadecimal digits."""
    job_name: str
    label: str
    """What tells it from the other runs of its sweep."""
    words: tuple[str, ...]
    """Its settings, as they are typed after ``with``."""
    outcome: Outcome = "waiting"
    failures: int = 0
    deaths: int = 0
    """How often in a row its worker died with no round finished since the time before."""
    starts: int = 0
    round: int = 0
    """The last finished round when it was last begun."""
    error: str = ""
    """Why it failed the last time."""
    worker: str = ""
    """Who trains it, or did last: host and process."""
    run: str = ""
    """Where it is recorded."""

    @property
    def is_over(self) -> bool:
        return self.outcome in FINAL


def this_worker() -> str:
    """Name this process among those that serve a queue."""
    return f"{socket.gethostname()}:{os.getpid()}"


def begun(entry: Entry, worker: str, last_round: int) -> Entry:
    """Return the entry as a worker begins it, whose job has ``last_round`` finished rounds.

    A worker that took an entry and neither ended it nor gave it back has died.
    """
    deaths = 0
    if entry.outcome == "running":
        deaths = entry.deaths + 1 if last_round <= entry.round else 1
    if deaths >= MAX_DEATHS:
        error = (
            f"its worker died {deaths} times with no round finished in between, "
            f"last on {entry.worker}"
        )
        return replace(entry, outcome="failed", deaths=deaths, error=error)
    return replace(
        entry,
        outcome="running",
        worker=worker,
        starts=entry.starts + 1,
        deaths=deaths,
        round=last_round,
    )


def ended(
    entry: Entry, outcome: Outcome, error: str = "", run: str = "", *, is_final: bool = False
) -> Entry:
    """Return the entry after its worker ended it; one that failed waits for its next try.

    A final failure has none: its cause will stay.
    """
    failures = entry.failures + (outcome == "failed")
    if outcome == "failed" and failures < MAX_FAILURES and not is_final:
        outcome = "waiting"
    return replace(
        entry, outcome=outcome, failures=failures, deaths=0, error=error, run=run or entry.run
    )


def given_back(entry: Entry) -> Entry:
    """Return the entry after its worker was interrupted, which is no failure."""
    return replace(entry, outcome="waiting", deaths=0)


def to_retry(entry: Entry) -> Entry:
    """Return the entry as if it had never failed."""
    return replace(entry, outcome="waiting", failures=0, deaths=0)
