"""One start of a job in the parent process: from a checked configuration to the summary."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scaling_fl.config import Config
from scaling_fl.core.errors import Interrupted
from scaling_fl.jobs.job import Job
from scaling_fl.jobs.keeper import Keeper
from scaling_fl.reporting.console import Console
from scaling_fl.reporting.learned import why_nothing_was_learned
from scaling_fl.reporting.summary import how_to_train_further, summary
from scaling_fl.runtime.machines.launch import Callbacks, WorkerFailed, WorkerGroup
from scaling_fl.runtime.machines.node import Node, threads_per_worker
from scaling_fl.runtime.machines.start import Starter
from scaling_fl.runtime.record.events import Event
from scaling_fl.runtime.record.live import NAME, LiveProgress
from scaling_fl.runtime.tracking.follower import Follower
from scaling_fl.runtime.tracking.run_folder import RunFolder
from scaling_fl.runtime.tracking.runs import Run


class Session:
    """Runs the workers of this machine, and on the first machine keeps the run's record.

    ``job`` and ``folder`` are None on the other machines: they have nothing to record. ``scripts``
    are the scripts to go on with, by name, and what is typed to start each. ``heard`` is called for
    every event that is journaled.
    """

    def __init__(
        self,
        config: Config,
        node: Node,
        *,
        job: Job | None,
        folder: RunFolder | None,
        followers: Sequence[Follower],
        starter: Starter,
        resume_command: str,
        scripts: Mapping[str, str] | None = None,
        heard: Callable[[Event], None] | None = None,
    ) -> None:
        self._config, self._node, self._job = config, node, job
        self._starter, self._resume_command, self._scripts = starter, resume_command, scripts
        self._log = folder.log if folder else None
        self._console = Console(log=self._log, num_rounds=config.num_rounds)
        for follower in followers:
            follower.note = self._console.warn
        if folder:
            folder.trouble.note = self._console.warn
        self._keeper = (
            Keeper(job, folder, followers, self._console, heard) if job and folder else None
        )
        self.outcome: Run | None = None
        """What the run has come to, once it has ended; None where that is not recorded."""
        self._progress = LiveProgress(job.journal.path.with_name(NAME) if job else None)

    def run(self) -> dict[str, Any]:
        """Run the job to its end and return its last metrics.

        Raises:
            WorkerFailed: with the first error.
            Interrupted: by SIGTERM or Ctrl-C, after the last finished round was saved.
        """
        status, message = "FAILED", ""
        try:
            if self._keeper:
                self._keeper.begin(self._resume_command)
            stopped_by = self._run_workers()
            if stopped_by:
                raise Interrupted(stopped_by)
            status = self._keeper.final_status() if self._keeper else "COMPLETED"
            self._say_if_nothing_was_learned()
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
        num_threads = threads_per_worker(self._node, self._config.num_threads, os.environ)
        workers = WorkerGroup(
            self._node, self._orders(), num_threads=num_threads, starter=self._starter
        )
        lock = self._job.claim.fileno() if self._job else None
        num_workers = len(self._node.device_ids)
        text = f"starting {num_workers} worker{'s' * (num_workers > 1)}"
        self._console.show({"event": "stage", "text": text})
        callbacks = Callbacks(event=self._hear, printed=self._console.line, tick=self._tick)
        return workers.run(callbacks, keep_open=[] if lock is None else [lock])

    def _orders(self) -> dict[str, Any]:
        job = None
        if self._job:
            path = str(self._job.journal.path)
            job = {"checkpoints": self._job.checkpoints_url, "journal": path}
        paths = [os.path.abspath(path) for path in sys.path]
        return {"config": self._config.model_dump(mode="json"), "job": job, "paths": paths}

    def _hear(self, event: Mapping[str, Any]) -> None:
        if self._node.local_rank:
            return
        if event["event"] == "progress":
            fields = {key: value for key, value in event.items() if key != "event"}
            self._console.show(self._progress.add(**fields))
        elif self._keeper:
            self._keeper.hear(event)
        else:
            self._console.show(event)

    def _tick(self) -> None:
        if self._keeper:
            self._keeper.tick()
        self._console.tick()

    def _say_if_nothing_was_learned(self) -> None:
        if self._keeper:
            record = self._keeper.record
            settings = self._config.model_dump(mode="json")
            if text := why_nothing_was_learned(record.metrics, record.baseline, settings):
                self._keeper.warn(text)

    def _last_metrics(self) -> dict[str, Any]:
        metrics = self._keeper.record.metrics if self._keeper else {}
        return {name: series["values"][-1] for name, series in metrics.items()}

    def _close(self, status: str, message: str) -> None:
        if self._keeper and not self._keeper.is_open:
            self._progress.clear()
            self._console.close()
            if self._job and not self._job.is_new:
                self._console.line("Nothing was changed: the job and its record are as they were.")
            return
        unrecorded = self._keeper.end(status, message) if self._keeper else None
        self._progress.clear()
        self._console.close()
        if unrecorded and status in ("COMPLETED", "DEGRADED"):
            raise unrecorded
        if unrecorded and str(unrecorded) != message:
            self._console.line(str(unrecorded))
        if self._keeper:
            settings = self._config.model_dump(mode="json")
            self.outcome = run = self._keeper.run(settings, status, message)
            facts = run.facts() | {"resume_command": self._resume_command, "scripts": self._scripts}
            facts["missing"] = self._keeper.missing
            if status == "FAILED":
                # The command says why, last of all; once is enough.
                facts["message"] = None
            further = how_to_train_further(settings, run.num_rounds, run.record.stopped_by)
            self._console.line(summary(facts, further=further))
        if self._log and status == "FAILED":
            self._log(f"Error: {message}")  # which the command prints itself
