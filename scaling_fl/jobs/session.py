"""One start of a job in the parent process: from a checked configuration to the summary."""

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from scaling_fl.config import Config
from scaling_fl.core.errors import Interrupted
from scaling_fl.jobs.job import Job, from_here
from scaling_fl.reporting.console import Console
from scaling_fl.reporting.partition_figure import draw
from scaling_fl.reporting.summary import summary
from scaling_fl.runtime.machines.launch import Callbacks, WorkerFailed, WorkerGroup
from scaling_fl.runtime.machines.node import Node, available_cores
from scaling_fl.runtime.record.journal import JournalError, JournalTail
from scaling_fl.runtime.tracking.mirror import MongoMirror
from scaling_fl.runtime.tracking.run_folder import RunFolder

REFRESH_SECONDS = 1.0


class Session:
    """Runs the workers of this machine, and on the first machine keeps the run's record.

    ``job`` and ``folder`` are None on the other machines: they have nothing to record.
    """

    def __init__(
        self,
        config: Config,
        node: Node,
        *,
        job: Job | None,
        folder: RunFolder | None,
        mirror: MongoMirror | None,
        resume_command: str,
    ) -> None:
        self._config, self._node = config, node
        self._job, self._folder, self._mirror = job, folder, mirror
        self._resume_command = resume_command
        self._console = Console(log=folder.log if folder else None)
        if mirror:
            mirror.note = self._console.warn
        self._tail = JournalTail(job.journal.path) if job else None
        self._record = job.record if job else None
        self._num_rounds = config.num_rounds  # fewer when a privacy budget ends the run
        self._refreshed = 0.0
        self._drawing: threading.Thread | None = None

    def run(self) -> dict[str, Any]:
        """Run the job to its end and return its last metrics.

        Raises:
            WorkerFailed: with the first error.
            Interrupted: by SIGTERM or Ctrl-C, after the last finished round was saved.
        """
        status, message = "FAILED", ""
        try:
            if self._job and self._folder and self._tail:
                self._tail.read_new()  # what earlier starts wrote is in the record already
                self._job.begin(self._folder.run_id)
            stopped_by = self._run_workers()
            if stopped_by:
                raise Interrupted(stopped_by)
            status = self._final_status()
            return self._last_metrics()
        except Interrupted as interrupted:
            status, message = interrupted.STATUS, str(interrupted)
            raise
        except WorkerFailed as error:
            message = str(error)
            if error.report:
                self._console.warn(error.report)
            raise
        finally:
            self._close(status, message)

    def _run_workers(self) -> int | None:
        workers = WorkerGroup(self._node, self._orders(), num_threads=self._num_threads())
        lock = self._job.claim.fileno() if self._job else None
        callbacks = Callbacks(event=self._show, printed=self._console.line, tick=self._tick)
        return workers.run(callbacks, keep_open=[] if lock is None else [lock])

    def _orders(self) -> dict[str, Any]:
        job = None
        if self._job:
            path = str(self._job.journal.path)
            job = {"checkpoints": self._job.checkpoints_url, "journal": path}
        return {"config": self._config.model_dump(mode="json"), "job": job}

    def _num_threads(self) -> int:
        workers = len(self._node.device_ids)
        if "LOCAL_WORLD_SIZE" in os.environ:
            workers = int(os.environ["LOCAL_WORLD_SIZE"])
        return self._config.num_threads or max(1, available_cores() // workers)

    def _how_to_go_further(self) -> str | None:
        """Say how the resume command trains beyond the last round, if a run of this kind can."""
        if self._num_rounds < self._config.num_rounds:
            return "give a larger privacy.max_epsilon to"
        if self._config.privacy.target_epsilon is not None:
            return None  # the noise was chosen for these rounds
        return "give a larger num_rounds to"

    def _show(self, event: Mapping[str, Any]) -> None:
        if self._node.local_rank:
            return
        fields = {key: value for key, value in event.items() if key != "event"}
        if event["event"] == "progress":
            self._console.client_progress(num_rounds=self._num_rounds, **fields)
        elif event["event"] == "round":
            self._console.round_done(**fields)
        elif event["event"] == "note":
            self._console.line(fields["text"])
        elif event["event"] == "stage":
            self._console.stage(fields["text"])
        elif event["event"] == "ready":
            self._num_rounds = fields["num_rounds"]
            if fields["round"]:
                self._console.line(self._resume_sentence(fields["round"]))

    def _resume_sentence(self, done: int) -> str:
        if done >= self._num_rounds:
            return f"nothing is left to do: round {done} of {self._num_rounds} is done"
        return f"resuming after round {done} of {self._num_rounds}"

    def _tick(self) -> None:
        """Carry new journal lines into the run folder and poke the mirror, once a second."""
        if not (self._tail and self._record and self._folder):
            return
        if time.monotonic() - self._refreshed < REFRESH_SECONDS:
            return
        self._refreshed = time.monotonic()
        try:
            events = self._tail.read_new()
        except OSError:
            return  # the workers, who write there, say why
        if not events:
            return
        for event in events:
            self._record.apply(event)
        if self._drawing is None and self._record.partition:
            self._drawing = threading.Thread(target=self._draw, args=(self._record.partition,))
            self._drawing.start()
        self._folder.refresh(self._record)
        if self._mirror:
            self._mirror.poke()

    def _draw(self, partition: Mapping[str, Any]) -> None:
        if "histograms" not in partition:
            return  # the figure is of labels, which not every task has
        assert self._folder
        path = self._folder.path / "partition.png"
        draw(path, partition["label_names"], partition["histograms"], partition["entropies"])
        self._folder.artifact_event("partition.png", str(path))

    def _final_status(self) -> str:
        self._refreshed = 0.0
        self._tick()
        if self._record and self._record.failures:
            assert self._folder
            self._folder.mark("DEGRADED")
            return "DEGRADED"
        return "COMPLETED"

    def _last_metrics(self) -> dict[str, Any]:
        metrics = self._record.metrics if self._record else {}
        return {name: series["values"][-1] for name, series in metrics.items()}

    def _record_end(self, status: str, message: str) -> JournalError | None:
        """Journal the end; returns what keeps the disk from taking it."""
        try:
            if self._job:
                self._job.end(status, message)
        except JournalError as error:
            return error
        return None

    def _close(self, status: str, message: str) -> None:
        unrecorded = self._record_end(status, message)
        self._refreshed = 0.0
        self._tick()
        if self._drawing:
            self._drawing.join()
        self._console.close()
        if unrecorded and status in ("COMPLETED", "DEGRADED"):
            raise unrecorded
        if unrecorded and str(unrecorded) != message:
            self._console.line(str(unrecorded))
        if self._job and self._folder and self._record:
            self._console.line(
                summary(
                    status=status,
                    message=message,
                    job_name=self._job.name,
                    metrics=self._record.metrics,
                    num_rounds=self._num_rounds,
                    last_round=self._record.last_round,
                    failures=self._record.failures,
                    run_dir=str(self._folder.path),
                    checkpoints=from_here(self._job.checkpoints_url),
                    journal=from_here(str(self._job.journal.path)),
                    resume_command=self._resume_command,
                    further=self._how_to_go_further(),
                )
            )
