"""A slot of a sweep: a process that takes runs from the queue and trains one after the other.

``commands.sweeps.sweep`` starts it with its orders, one line of JSON on standard input, and reads
what it tells, one line of JSON each, on standard output. When that pipe closes, because the other
process has died, the slot ends as after SIGTERM: the run that it trains can be resumed.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from scaling_fl.commands.endings import end, raise_on_signals
from scaling_fl.commands.run_page import leave_page
from scaling_fl.commands.settings import Checked, check
from scaling_fl.commands.sweeps.runs import (
    FINISHED,
    is_current,
    open_queue,
    place_of,
    read_words,
    run_of,
)
from scaling_fl.commands.train import train
from scaling_fl.core.errors import InputError, Interrupted, UserError
from scaling_fl.core.metric_names import is_of_all
from scaling_fl.reporting.report.records import PAGE
from scaling_fl.runtime.machines.launch import WorkerDied
from scaling_fl.runtime.machines.node import available_cores, threads_per_worker
from scaling_fl.runtime.machines.start import (
    FreshProcesses,
    LastingProcess,
    Starter,
    can_preload,
    worker_environment,
)
from scaling_fl.runtime.record.events import Event
from scaling_fl.sweeps.entry import MAX_DEATHS, Entry, Outcome
from scaling_fl.sweeps.placement import SlotOrders, on_sites, threads_of
from scaling_fl.sweeps.queue import Lease

WAIT_SECONDS = 1.0
"""How often a slot that has nothing to do looks whether a worker of another run has died."""
AFTERMATH_SECONDS = 60.0
"""How long the processes of a run whose slot has died are waited for."""


class Slot:
    """Serves a queue until nothing is left to do."""

    def __init__(self, orders: SlotOrders, reports: int) -> None:
        self._orders, self._reports = orders, reports
        self._queue = open_queue(orders.place, orders.sweep)
        self._keys = None if orders.keys is None else frozenset(orders.keys)
        self._current: dict[str, bool] = {}
        self._preloaded: tuple[int, LastingProcess] | None = None
        self._lease: Lease | None = None
        self._is_cut = False

    def serve(self) -> None:
        """Take and train runs, until all that are in the queue are over."""
        try:
            while True:
                if lease := self._queue.take(self._allowed()):
                    self._serve(lease)
                elif self._is_all_over():
                    return
                else:  # others are at work, and may die
                    time.sleep(WAIT_SECONDS)
        finally:
            if self._preloaded:
                self._preloaded[1].end()

    def _allowed(self) -> Container[str] | None:
        """Return the keys of the runs that this slot may take; None: all."""
        return {each.key for each in self._mine()} if self._orders.num_runs else self._keys

    def _is_all_over(self) -> bool:
        mine = self._mine()
        return len(mine) >= self._orders.num_runs and all(entry.is_over for entry in mine)

    def _mine(self) -> list[Entry]:
        """List the runs of the queue that this slot serves."""
        entries = self._queue.entries()
        if self._orders.num_runs:
            return [each for each in entries if self._is_current(each)]
        return [each for each in entries if self._keys is None or each.key in self._keys]

    def _is_current(self, entry: Entry) -> bool:
        if entry.key not in self._current:
            self._current[entry.key] = is_current(entry)
        return self._current[entry.key]

    def _serve(self, lease: Lease) -> None:
        """Train the run of a lease, and say in the queue what it has come to."""
        began = time.monotonic()
        self._tell("started", lease.entry)
        self._lease = lease
        try:
            with self._logged(lease.entry):
                self._train(lease)
        finally:
            is_interrupted = self._lease is not None
            if is_interrupted:
                self._lease = None
                lease.release()
            seconds = time.monotonic() - began
            self._tell("ended", lease.entry, seconds=seconds, is_interrupted=is_interrupted)

    def _train(self, lease: Lease) -> None:
        try:
            checked = self._checked(lease.entry)
        except UserError as error:
            self._end_failed(str(error), is_final=isinstance(error, InputError))
            return
        self._check_key(lease.entry)
        run = run_of(checked.config)
        if run and run.status in FINISHED:
            if run.folder and not (run.folder / PAGE).exists():
                leave_page(run)  # whoever trained it died before it did
            self._end("done", run=place_of(run))
            return
        last_round = run.record.last_round if run else 0
        if not lease.begin(last_round):
            self._lease = None
            return
        deaths = 0
        while self._lease:
            try:
                self._train_once(checked)
            except WorkerDied as error:
                print(f"Error: {error}", file=sys.stderr, flush=True)
                before, run = last_round, run_of(checked.config)
                last_round = run.record.last_round if run else 0
                deaths = deaths + 1 if last_round <= before else 1
                if deaths >= MAX_DEATHS:
                    self._end_failed(str(error), is_final=True)

    def _train_once(self, checked: Checked) -> None:
        self._is_cut = False

        def heard(event: Event) -> None:
            if event["event"] == "round":
                self._hear_round(event, checked)

        try:
            with ExitStack() as closing:
                folder = train(
                    checked,
                    closing,
                    starter=self._starter(checked),
                    heard=heard,
                    patience_seconds=AFTERMATH_SECONDS,
                )
        except Interrupted:
            if not self._is_cut:
                raise
            run = run_of(checked.config)
            self._end("pruned", run=place_of(run) if run else "")
        except WorkerDied:
            raise
        except UserError as error:
            self._end_failed(str(error), is_final=isinstance(error, InputError))
        except Exception as error:
            traceback.print_exc()
            self._end_failed(f"{type(error).__name__}: {error}")
        else:
            self._end("done", run=str(folder))

    def _end(self, outcome: Outcome, **told: Any) -> None:
        assert self._lease
        self._lease.end(outcome, **told)
        self._lease = None

    def _end_failed(self, error: str, *, is_final: bool = False) -> None:
        """Note a failure; a final one will not be tried again."""
        print(f"Error: {error}", file=sys.stderr, flush=True)
        self._end("failed", error=error, is_final=is_final)

    def _hear_round(self, event: Event, checked: Checked) -> None:
        lease = self._lease
        assert lease
        self._tell(
            "round",
            lease.entry,
            round=event["round"],
            num_rounds=checked.config.num_rounds,
            metrics={k: v for k, v in event.get("metrics", {}).items() if is_of_all(k)},
        )
        if (lease.is_lost or lease.is_pruned) and not self._is_cut:
            self._is_cut = True
            os.kill(os.getpid(), signal.SIGTERM)  # ends the run as a person would

    def _checked(self, entry: Entry) -> Checked:
        """Check the settings of a run as the training command does, on the sites of this slot."""
        line = read_words(entry.words)
        site_ids = line.settings["site_ids"]
        if self._orders.sites and isinstance(site_ids, list):
            line.typed.values["site_ids"] = str(on_sites(site_ids, self._orders.sites))
        if self._orders.num_slots > 1 and line.settings["num_threads"] is None:
            num_workers = len({*line.settings["site_ids"]})
            threads = threads_of(available_cores(), num_workers, self._orders.num_slots)
            line.typed.values["num_threads"] = str(threads)
        return check(line, os.environ)

    def _check_key(self, entry: Entry) -> None:
        """Check that a run would be what it was when it was put into the queue.

        Raises:
            UserError: its data or the code have changed since, or are others on this machine.
        """
        if not is_current(entry):
            raise UserError(
                f"the run {entry.label} of {self._queue.where} must have the data and the code "
                "with which it was put there, and has others on this machine; put the experiments "
                "there again, or update this machine."
            )

    def _starter(self, checked: Checked) -> Starter:
        """Choose how the workers start; the process that they are forked from is kept."""
        if not can_preload(checked.config.device, os.environ):
            return FreshProcesses()
        threads = threads_per_worker(checked.node, checked.config.num_threads, os.environ)
        if self._preloaded and (self._preloaded[0] != threads or not self._preloaded[1].is_alive):
            self._preloaded[1].end()
            self._preloaded = None
        if not self._preloaded:
            self._preloaded = threads, LastingProcess(worker_environment(threads, os.environ))
        return self._preloaded[1]

    @contextmanager
    def _logged(self, entry: Entry) -> Iterator[None]:
        """Have all output of a run in its file, which goes on where an earlier start ended."""
        file = Path(self._orders.logs) / entry.key / "log.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = [os.dup(number) for number in (1, 2)]
        with file.open("ab") as log:
            try:
                for number in (1, 2):
                    os.dup2(log.fileno(), number)
                yield
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                for number, former in zip((1, 2), kept, strict=True):
                    os.dup2(former, number)
                    os.close(former)

    def _tell(self, what: str, entry: Entry, **fields: Any) -> None:
        state = {"outcome": entry.outcome, "error": entry.error, "run": entry.run}
        tell(
            self._reports,
            {"event": what, "key": entry.key, "label": entry.label, **state, **fields},
        )


def tell(reports: int, fields: Mapping[str, Any]) -> None:
    """Write a line for the process that has started this one, if it still lives."""
    with suppress(OSError):  # the watch on standard input ends this process
        os.write(reports, json.dumps(fields).encode() + b"\n")


def _end_with(parent: int) -> None:
    """End this process in good order when the other end of a pipe closes."""
    while os.read(parent, 1 << 10):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Serve as the orders on standard input say; returns the exit code."""
    raise_on_signals()
    # What is printed by accident must not stand among the reports.
    reports = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(os.dup(0), "rb", buffering=0) as orders:
        given = SlotOrders(**json.loads(orders.readline()))
    threading.Thread(target=_end_with, args=(0,), daemon=True).start()

    def serve() -> None:
        try:
            Slot(given, reports).serve()
        except UserError as error:
            tell(reports, {"event": "refused", "text": str(error)})
            raise

    return end(serve)


if __name__ == "__main__":
    sys.exit(main())
