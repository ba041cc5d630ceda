"""The command ``scripts/run_experiments.py``: many runs, each finished once, whatever happens."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from scaling_fl.commands.caller import script
from scaling_fl.commands.endings import Misused, end, raise_on_signals, show, stage
from scaling_fl.commands.slot import SlotOrders
from scaling_fl.commands.slots import Slots
from scaling_fl.commands.sweep_check import Sweep, check_name, check_sweep, repeats
from scaling_fl.commands.sweep_runs import SCRIPT, open_queue
from scaling_fl.core.errors import Interrupted, UserError
from scaling_fl.reporting.sweep_table import SweepRow, SweepTable, sums
from scaling_fl.runtime.tracking.runs import from_here
from scaling_fl.sweeps.entry import Entry
from scaling_fl.sweeps.placement import deal_sites
from scaling_fl.sweeps.queue import Queue

SWEEPS_DIR = "sweeps"
LOOK_SECONDS = 2.0
"""How often the queue is looked at for what other machines do."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Which runs, and where and how they are computed."""

    file: Path | None = None
    """The experiments; None: what is in the queue already."""
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
    return end(partial(_run, options))


def _run(options: SweepOptions) -> None:
    sweep = None
    if options.file:
        sweep = check_sweep(options.file, options.name, options.words)
        for text in repeats(sweep):
            stage(f"note: {text}")
    name = sweep.name if sweep else check_name(options.name or "")
    queue = open_queue(options.place, name)
    if options.is_dry:
        assert sweep
        # By its name, because it needs torch, which takes seconds to import.
        import_module("scaling_fl.commands.sweep_plan").show_plan(
            sweep,
            queue,
            with_time=options.with_time,
            sites=options.sites,
            num_slots=options.parallel,
        )
        return
    keys = _put(queue, sweep, options)
    entries = _entries(queue, keys)
    if not entries:
        raise Misused(
            f"--queue must name a sweep that has runs, got {name}, of which {queue.where} has "
            f"none; put some there first:\n"
            f"  {script(SCRIPT)} --config-list experiments.yaml --name {name} --add-only"
        )
    if options.is_adding:
        show(f"{queue.where}: {sums(_row(entry) for entry in entries)}")
        return
    _serve(queue, keys, entries, name, options)


def _put(queue: Queue, sweep: Sweep | None, options: SweepOptions) -> list[str] | None:
    """Put the runs into the queue; returns their keys, None: all that are there are meant."""
    keys = None
    if sweep:
        queue.add(sweep.entries)
        keys = [entry.key for entry in sweep.entries]
    if options.retries_failed:
        for entry in _entries(queue, keys):
            if entry.outcome == "failed":
                queue.retry(entry.key)
    return keys


def _entries(queue: Queue, keys: Sequence[str] | None) -> list[Entry]:
    wanted = None if keys is None else set(keys)
    return [entry for entry in queue.entries() if wanted is None or entry.key in wanted]


def _serve(
    queue: Queue,
    keys: list[str] | None,
    entries: Sequence[Entry],
    name: str,
    options: SweepOptions,
) -> None:
    """Have slots train what is left, and say what has come of all."""
    table = SweepTable([_row(entry) for entry in entries])
    logs = _logs(queue, name)
    if not all(entry.is_over for entry in entries):
        signal_number = _train(queue, keys, table, logs, name, options)
        if signal_number:
            entries = _entries(queue, keys)
            stage(f"{sums(_row(entry) for entry in entries)}; the same command goes on.")
            raise Interrupted(signal_number)
    _conclude(_entries(queue, keys), name, logs)


def _train(
    queue: Queue,
    keys: list[str] | None,
    table: SweepTable,
    logs: str,
    name: str,
    options: SweepOptions,
) -> int | None:
    orders = [
        SlotOrders(
            place=options.place,
            sweep=name,
            keys=keys,
            logs=logs,
            sites=sites,
            num_slots=options.parallel,
        )
        for sites in deal_sites(options.sites, options.parallel)
    ]
    table.open()
    try:
        with _watching(queue, keys, table):
            return Slots(orders, table.hear).run()
    finally:
        table.close()


@contextmanager
def _watching(queue: Queue, keys: list[str] | None, table: SweepTable) -> Iterator[None]:
    """Show what other machines do, in a thread: a queue that is away must hold nothing up."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            with suppress(UserError):  # the slots say so, where it matters
                table.note([_row(entry) for entry in _entries(queue, keys)])

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _conclude(entries: Sequence[Entry], name: str, logs: str) -> None:
    """Say what the runs have come to and how to compare them.

    Raises:
        UserError: some have failed.
    """
    show(f"sweep {name}, {sums(_row(entry) for entry in entries)}")
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
