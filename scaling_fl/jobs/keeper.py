"""The record of one start: what is journaled goes to the console, the run folder and the trackers.

Worker 0 journals what it computes; here is journaled what its process is told beside that. All of
it is then shown from the journal, so that whoever reads the journal elsewhere sees the same.
"""

import io
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scaling_fl.jobs.job import Job
from scaling_fl.reporting.console import Console
from scaling_fl.reporting.partition_figure import draw
from scaling_fl.runtime.record.events import Event
from scaling_fl.runtime.record.journal import JournalError, JournalTail
from scaling_fl.runtime.tracking.follower import Follower
from scaling_fl.runtime.tracking.regained import ranges, regain
from scaling_fl.runtime.tracking.run_folder import RunFolder
from scaling_fl.runtime.tracking.runs import Run

READ_SECONDS = 0.2
REFRESH_SECONDS = 1.0


class Keeper:
    """Carries a job's journal on, from its start to its end."""

    def __init__(
        self,
        job: Job,
        folder: RunFolder,
        followers: Sequence[Follower],
        console: Console,
        heard: Callable[[Event], None] | None = None,
    ) -> None:
        """``heard`` is called for every event that is journaled from now on."""
        self._heard = heard
        self._job, self._folder, self._followers, self._console = job, folder, followers, console
        self._tail = JournalTail(job.journal.path)
        self.record = job.record
        self.is_open = False
        """Whether this start is on record: that of a new job at once, else when it is accepted."""
        self._resume_command = ""
        self._earlier: list[Event] = []
        self._held: list[Event] = []
        self._was_read = self._was_refreshed = 0.0
        self._is_refreshed = True
        self._drawing: threading.Thread | None = None

    def begin(self, resume_command: str) -> None:
        """Record the start of a new job; that of another one waits until its workers are ready.

        Raises:
            StorageError, JournalError: it cannot be recorded.
        """
        self._resume_command = resume_command
        self._earlier = self._tail.read_new()  # it is in the record already
        if self._job.is_new:
            self._open(0)

    def _open(self, last_round: int) -> None:
        """Put the start on record; the job goes on after ``last_round``."""
        self._folder.open(self.record.history, _lines_of(self._earlier))
        lost = set(range(1, last_round + 1)) - self.record.digests.keys()
        if lost:
            self._regain(lost)
        self._job.begin(self._folder.run_id, self._resume_command, self._folder.start_time)
        for event in self._held:
            self._job.journal.append(**event)
        for told in self._tail.read_new():  # and shown when it came
            self.record.apply(told)
        self._folder.refresh(self.record)
        for follower in self._followers:
            follower.start()
        self.is_open = True

    def _regain(self, lost: set[int]) -> None:
        """Journal again what the run folder has of lost rounds, and say what is lost for good."""
        events = regain(self._folder.path, self.record, lost)
        for event in events:
            self._job.journal.append(**event)
        here = {event["round"] for event in events if event["event"] == "round"}
        for numbers, text in (
            (here, f"taken back from {self._folder.path}"),
            (lost - here, "which the run folder lacks, too; the metrics go without"),
        ):
            if numbers:
                rounds = f"round{'s' * (len(numbers) > 1)} {ranges(numbers)}"
                said = f"the journal had lost {rounds}, {text}"
                self._hold({"event": "note", "level": "warning", "text": said})

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take in an event of a worker, which journals a round before it reports the round.

        Raises:
            StorageError, JournalError: a start that was accepted cannot be recorded.
        """
        if not self.is_open:
            self._hold(event)
            return
        if event["event"] in ("stage", "note"):
            self._journal(event)
        self._read()

    def _hold(self, event: Mapping[str, Any]) -> None:
        """Show what is told before the start is accepted, and journal it only then."""
        if event["event"] == "ready":
            self._open(event["round"])
        elif event["event"] in ("stage", "note"):
            self._held.append(_as_journaled(event))
            self._console.show(event)

    def _journal(self, event: Mapping[str, Any]) -> None:
        try:
            self._job.journal.append(**_as_journaled(event))
        except JournalError:  # the workers, who write there, too, say why
            self._console.show(event)

    def tick(self) -> None:
        """Show what is new in the journal, and carry it into the run folder once a second."""
        if not self.is_open:
            return
        now = time.monotonic()
        if now - self._was_read >= READ_SECONDS:
            self._read()
        if not self._is_refreshed and now - self._was_refreshed >= REFRESH_SECONDS:
            self._refresh()

    def end(self, status: str, message: str) -> JournalError | None:
        """Journal the end and complete the record; returns what keeps the disk from taking it."""
        if not self.is_open:
            return None
        unrecorded = None
        try:
            self._job.end(status, message)
        except JournalError as error:
            unrecorded = error
        self._read()
        self._refresh()
        if self._drawing:
            self._drawing.join()
        return unrecorded

    def final_status(self) -> str:
        """Say how a run has ended that went to its end."""
        self._read()
        if not self.record.failures:
            return "COMPLETED"
        self._folder.mark("DEGRADED")
        return "DEGRADED"

    def warn(self, text: str) -> None:
        """Journal a note that calls for attention, which the console then shows."""
        self._journal({"event": "note", "level": "warning", "text": text})
        self._read()

    @property
    def missing(self) -> str:
        """Name what the run folder lacks, because it could not be written."""
        return ", ".join(self._folder.trouble.missing)

    def run(self, config: Mapping[str, Any], status: str, message: str) -> Run:
        """Describe the run as a reader would find it, even where its end could not be journaled."""
        self.record.message = message
        return Run(
            where=str(self._folder.path),
            status=status,
            record=self.record,
            config=config,
            checkpoints=self._job.checkpoints_url,
            folder=self._folder.path,
            journal=self._job.journal.path,
        )

    def _read(self) -> None:
        self._was_read = time.monotonic()
        try:
            events = self._tail.read_new()
        except OSError:
            return  # the workers, who write there, say why
        for event in events:
            self.record.apply(event)
            self._console.show(event)
            self._is_refreshed = False
            if self._heard:
                self._heard(event)
        if self._drawing is None and self.record.partition:
            self._drawing = threading.Thread(target=self._draw, args=(self.record.partition,))
            self._drawing.start()

    def _refresh(self) -> None:
        self._was_refreshed, self._is_refreshed = time.monotonic(), True
        self._folder.refresh(self.record)
        for follower in self._followers:
            follower.poke()

    def _draw(self, partition: Mapping[str, Any]) -> None:
        if "histograms" not in partition:
            return  # the figure is of labels, which not every task has
        path = self._folder.path / "partition.png"
        with self._folder.told(path.name):
            draw(
                path,
                partition["label_names"],
                partition["histograms"],
                partition["entropies"],
                partition.get("client_names"),
            )
            self._folder.artifact_event(path.name, str(path))


def _as_journaled(event: Mapping[str, Any]) -> Event:
    return ({"level": "info"} if event["event"] == "note" else {}) | dict(event)


def _lines_of(events: list[Event]) -> str:
    """Write what the console showed of earlier starts, by their journal."""
    shown = io.StringIO()
    console = Console(shown)
    for event in events:
        console.show(event)
    console.close()
    return shown.getvalue()
