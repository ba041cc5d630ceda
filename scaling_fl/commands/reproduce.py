"""The command ``scripts/reproduce.py``: try a published claim here, and say what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scaling_fl.commands.claims import PublishedClaim, judgements, names, read_claim
from scaling_fl.commands.endings import end, raise_on_signals, show, stage
from scaling_fl.commands.measured import report_run
from scaling_fl.commands.report import ReportOptions, write_report
from scaling_fl.commands.sweeps.sweep import SWEEPS_DIR, SweepOptions, run_sweep
from scaling_fl.reporting.report.claim_section import TriedClaim
from scaling_fl.runtime.tracking.sources import open_run
from scaling_fl.sweeps.entry import Entry


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """Which claim is tried, where its runs are computed, and where the report goes."""

    claim: str | None
    """A claim of the project, or a file; None: list those of the project."""
    sites: Sequence[int] = ()
    parallel: int = 1
    place: str = SWEEPS_DIR
    is_dry: bool = False
    out: Path | None = None
    words: Sequence[str] = ()
    """Settings that are typed after ``with`` for all runs."""


def main(options: ReproduceOptions) -> int:
    """Run what is left of a claim's runs and judge it; returns the exit code."""
    raise_on_signals()
    return end(partial(_run, options))


def _run(options: ReproduceOptions) -> None:
    if options.claim is None:
        for name in names():
            show(f"{name:10} {read_claim(name)[1].title}")
        return
    file, claim = read_claim(options.claim)
    name = f"reproduce-{file.stem}"
    entries = run_sweep(
        SweepOptions(
            file=file,
            within="runs",
            name=name,
            sites=options.sites,
            parallel=options.parallel,
            place=options.place,
            is_dry=options.is_dry,
            words=options.words,
        )
    )
    if not options.is_dry:
        _judge(claim, entries, options.out or Path(name))


def _judge(claim: PublishedClaim, entries: Sequence[Entry], out: Path) -> None:
    stage("reading the runs")
    runs = [report_run(open_run(entry.run)) for entry in entries if entry.run]
    tried = TriedClaim(
        title=claim.title,
        source=claim.source,
        notes=claim.notes,
        judgements=judgements(claim, runs),
    )
    write_report(runs, ReportOptions(places=[entry.run for entry in entries], out=out), tried)
    show("\n".join(_told(tried)))


def _told(claim: TriedClaim) -> list[str]:
    lines = [f"{claim.title} ({claim.source}):"]
    for each in claim.judgements:
        lines += [f"- {each.verdict}: {each.expectation.says}", f"  {each.why}"]
    return [*lines, claim.verdict]
