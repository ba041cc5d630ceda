"""The command ``scripts/run_experiments.py``: many runs, each finished once, whatever happens."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from scaling_fl.commands.caller import script
from scaling_fl.commands.endings import Misused, end, raise_on_signals, show, stage
from scaling_fl.commands.sweeps.check import Sweep, check_name, check_sweep, repeats
from scaling_fl.commands.sweeps.runs import SCRIPT, open_queue
from scaling_fl.commands.sweeps.search import SweepSearch
from scaling_fl.commands.sweeps.slots import Slots
from scaling_fl.core.errors import Interrupted, UserError
from scaling_fl.reporting.sweep_table import SweepRow, SweepTable, sums
from scaling_fl.runtime.tracking.runs import from_here
from scaling_fl.sweeps.entry import Entry
from scaling_fl.sweeps.placement import SlotOrders, deal_sites
from scaling_fl.sweeps.queue import Queue

SWEEPS_DIR = "sweeps"
LOOK_SECONDS = 2.0
"""How often the queue is looked at for what other machines do."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Which runs, and where and how they are computed."""

    file: Path | None = None
    """The experiments; None: what is in the queue already."""
    within: str | None = None
    """The key of the file that they stand below, if it says more than that."""
    name: str | None = None
    sites: Sequence[int] = ()
    parallel: int = 1
    place: str = SWEEPS_DIR
    is_dry: bool = False
    """Say what would be run, and run nothing."""
    with_time: bool = False
    """Measure how long the runs of a dry run would take."""
    is_adding: bool = False
    """Put the runs into the queue, and run none of them."""
    retries_failed: bool = False
    words: Sequence[str] = ()
    """Settings that are typed after ``with`` for all runs."""


def main(options: SweepOptions) -> int:
    """Run what is left of a sweep; returns the exit code."""
    raise_on_signals()
    return end(partial(run_sweep, options))


def run_sweep(options: SweepOptions) -> list[Entry]:
    """Run what is left of a sweep; returns what its runs have come to, nothing for a dry run.

    Raises:
        UserError: the runs are refused, or some have failed.
        Interrupted: what was begun can be gone on with.
    """
    sweep = None
    if options.file:
        sweep = check_sweep(options.file, options.name, options.words, within=options.within)
        for text in repeats(sweep):
            stage(f"note: {text}")
    name = sweep.name if sweep else check_name(options.name or "")
    queue = open_queue(options.place, name)
    if options.is_dry:
        assert sweep
        if sweep.search:
            stage(f"note: at most {sweep.search.trials} runs such as this one are chosen in turn")
        # By its name, because it needs torch, which takes seconds to import.
        import_module("scaling_fl.commands.sweeps.plan").show_plan(
            sweep,
            queue,
            with_time=options.with_time,
            sites=options.sites,
            num_slots=options.parallel,
        )
        return []
    work = _work(name, queue, sweep)
    if sweep and not work.search:
        queue.add(sweep.entries)
    if options.retries_failed:
        for entry in work.entries():
            if entry.outcome == "failed":
                queue.retry(entry.key)
    entries = work.entries()
    if not entries and not work.search:
        raise Misused(
            f"--queue must name a sweep that has runs, got {name}, of which {queue.where} has "
            f"none; put some there first:\n"
            f"  {script(SCRIPT)} --config-list experiments.yaml --name {name} --add-only"
        )
    if options.is_adding:
        show(f"{queue.where}: {sums(_row(entry) for entry in entries)}")
        return entries
    _serve(work, options)
    return work.entries()


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What slots are to do, and how it is looked at."""

    name: str
    queue: Queue
    keys: list[str] | None
    """The runs that slots take; None: all that are in the queue."""
    entries: Callable[[], list[Entry]]
    search: SweepSearch | None = None

    @property
    def is_over(self) -> bool:
        entries = self.entries()
        wanted = self.search.num_trials if self.search else 0
        return len(entries) >= wanted and all(entry.is_over for entry in entries)


def _work(name: str, queue: Queue, sweep: Sweep | None) -> _Work:
    if sweep is None:
        return _Work(name=name, queue=queue, keys=None, entries=queue.entries)
    if sweep.search:
        search = SweepSearch(queue, sweep)
        return _Work(name=name, queue=queue, keys=None, entries=search.entries, search=search)
    keys = [entry.key for entry in sweep.entries]
    wanted = frozenset(keys)

    def entries() -> list[Entry]:
        return [entry for entry in queue.entries() if entry.key in wanted]

    return _Work(name=name, queue=queue, keys=keys, entries=entries)


def _serve(work: _Work, options: SweepOptions) -> None:
    """Have slots train what is left, and say what has come of all."""
    logs = _logs(work.queue, work.name)
    if not work.is_over:
        signal_number = _train(work, logs, options)
        if signal_number:
            stage(f"{sums(_row(each) for each in work.entries())}; the same command goes on.")
            raise Interrupted(signal_number)
    _conclude(work, logs)


def _train(work: _Work, logs: str, options: SweepOptions) -> int | None:
    if work.search:
        work.search.fill(options.parallel)
    table = SweepTable([_row(entry) for entry in work.entries()])
    orders = [
        SlotOrders(
            place=options.place,
            sweep=work.name,
            keys=work.keys,
            logs=logs,
            sites=sites,
            num_slots=options.parallel,
            num_runs=work.search.num_runs if work.search else 0,
        )
        for sites in deal_sites(options.sites, options.parallel)
    ]

    def hear(event: Mapping[str, Any]) -> None:
        table.hear(event)
        if work.search:
            work.search.hear(event)
            if event["event"] == "ended":
                work.search.fill(options.parallel)

    table.open()
    try:
        with _watching(work, table):
            return Slots(orders, hear).run()
    finally:
        table.close()


@contextmanager
def _watching(work: _Work, table: SweepTable) -> Iterator[None]:
    """Show what other machines do, in a thread: a queue that is away must hold nothing up."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            with suppress(UserError):  # the slots say so, where it matters
                table.note([_row(entry) for entry in work.entries()])

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _conclude(work: _Work, logs: str) -> None:
    """Say what the runs have come to and how to compare them.

    Raises:
        UserError: some have failed.
    """
    entries, name = work.entries(), work.name
    show(f"sweep {name}, {sums(_row(entry) for entry in entries)}")
    if work.search and (text := work.search.best()):
        show(text)
    failed = [entry for entry in entries if entry.outcome == "failed"]
    for entry in failed:
        log = from_here(str(Path(logs).absolute() / entry.key / "log.txt"))
        show(f"failed: {entry.label}: {entry.error}\n  its output: {log}")
    if any(entry.run for entry in entries):
        show(
            "To list and to compare the runs:\n"
            f"  {script('runs.py')} --job '{name}-*'\n"
            f"  {script('report.py')} --sweep {name}"
        )
    if failed:
        raise UserError(
            f"{len(failed)} of {len(entries)} runs failed; when what they lack is there, type the "
            "same command with --retry-failed."
        )


def _logs(queue: Queue, name: str) -> str:
    """Name the folder of the output of runs: that of the queue, where it is one of this machine."""
    is_local = Path(queue.where).is_dir()
    return queue.where if is_local else f"{SWEEPS_DIR}/{name}"


def _row(entry: Entry) -> SweepRow:
    return SweepRow(
        key=entry.key,
        label=entry.label,
        outcome=entry.outcome,
        error=entry.error,
        run=from_here(entry.run) if entry.run else "",
    )
