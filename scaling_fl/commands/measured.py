"""A run that was read, as it is compared and reported: what it reached, by what and for what."""

import os
from collections.abc import Mapping
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from scaling_fl.commands.run_query import row_of
from scaling_fl.config.merges import MERGES
from scaling_fl.core.errors import UserError
from scaling_fl.reporting.comparison import BYTES, EPSILON, SECONDS, WITHHELD, MeasuredRun
from scaling_fl.reporting.report.data import CodeState, ReportRun
from scaling_fl.reporting.report.groups import SEEDS
from scaling_fl.reporting.run_rows import RunRow, main_metric
from scaling_fl.runtime.redaction import redact, secrets_of
from scaling_fl.runtime.tracking.code_state import experiment_of, hash_of_sources
from scaling_fl.runtime.tracking.run_files import plain
from scaling_fl.runtime.tracking.runs import Run

Curves = Mapping[str, tuple[list[int], list[float]]]


def report_run(run: Run, metric: str | None = None) -> ReportRun:
    """Describe a run for a report; ``metric`` is that to compare it by, by default its task's."""
    clean = partial(redact, secrets=secrets_of(os.environ))
    record, row = run.record, row_of(run)
    curves = {name: (each["steps"], each["values"]) for name, each in record.metrics.items()}
    metric = metric or main_metric(curves)
    baseline = record.baseline or {}
    return ReportRun(
        row=row,
        metric=metric,
        measured=measured_run(run, row, metric),
        curves=curves,
        clients=record.clients,
        failures=plain(record.failures, clean),
        notes=plain(record.notes, clean),
        attempts=record.history,
        partition=record.partition,
        baseline={f"validation.{name}": value for name, value in
                  (baseline.get("metrics") or {}).items()},
        num_test=baseline.get("num_examples"),
        code=_code(run),
        folder=str(run.folder.absolute()) if run.folder else None,
        checkpoint=_checkpoint(run),
    )  # fmt: skip


def measured_run(run: Run, row: RunRow, metric: str | None) -> MeasuredRun:
    """Collect what a run reached by a metric, what it had spent, and what it was measured on."""
    curves = run.record.metrics
    values = curves.get(metric or "")
    spent: dict[str, dict[int, float]] = {}
    if total := curves.get("bytes.total"):
        spent[BYTES] = dict(zip(total["steps"], total["values"], strict=True))
    if rounds := curves.get("time.round_seconds"):
        spent[SECONDS] = dict(zip(rounds["steps"], accumulate(rounds["values"]), strict=True))
    if epsilon := curves.get("privacy.epsilon"):
        spent[EPSILON] = dict(zip(epsilon["steps"], epsilon["values"], strict=True))
    return MeasuredRun(
        run=row.run,
        seeds=tuple(row.settings.get(name) for name in SEEDS),
        values=dict(zip(values["steps"], values["values"], strict=True)) if values else {},
        spent=spent,
        measure=_measure(run, row, metric),
        of_budget={SECONDS: {"machine": _machine(row)}, EPSILON: _guarantee(row)},
    )


def _measure(run: Run, row: RunRow, metric: str | None) -> dict[str, Any]:
    """Say what a value was measured by and on."""
    partition, baseline = run.record.partition, run.record.baseline or {}
    merge = MERGES.get(str(row.settings.get("merge.method")))
    own = " of each client's own model" if merge and merge.personal else ""
    # A run with noise does not tell of its training examples, because epsilon does not cover that.
    is_silent = partition is None and (
        row.settings.get("privacy.target_epsilon") or row.settings.get("privacy.noise_multiplier")
    )
    hidden = WITHHELD if is_silent else None
    return {
        "task": row.task,
        "metric": f"{metric}{own}" if metric else None,
        "split": _split(row),
        "training data": (partition or {}).get("examples", hidden),
        "owners of the training data": (partition or {}).get("owners", hidden),
        "test data": baseline.get("examples"),
    }


def _split(row: RunRow) -> str:
    settings = row.settings
    kind = settings.get("partition.kind") or (
        "iid" if settings.get("iid_split") else "label_sorted"
    )
    terms = {
        name.removeprefix("partition."): settings[name]
        for name in ("partition.alpha", "partition.min_examples", "partition.column")
        if settings.get(name) is not None and kind != "iid"
    }
    num_clients = settings.get("num_clients") or len(settings.get("site_ids") or [])
    parts = [str(kind), *(f"{name} {value}" for name, value in terms.items())]
    return ", ".join([*parts, f"{num_clients or '?'} clients"])


def _machine(row: RunRow) -> str | None:
    if row.host is None:
        return None
    settings = row.settings
    sites = len(set(settings.get("site_ids") or []))
    threads = settings.get("num_threads")
    told = f"{row.host}, {settings.get('device')}, {sites} worker{'s' * (sites != 1)}"
    return f"{told}, {threads} threads each" if threads else told


def _guarantee(row: RunRow) -> dict[str, Any]:
    names = ("unit", "delta", "accountant", "groups_per_client")
    return {f"privacy.{name}": row.settings.get(f"privacy.{name}") for name in names}


def _code(run: Run) -> CodeState | None:
    try:
        experiment = experiment_of(run)
    except UserError:
        return None
    if not experiment:
        return None
    repository = (experiment.get("repositories") or [{}])[0]
    return CodeState(
        commit=repository.get("commit"),
        is_dirty=repository.get("dirty"),
        sources=hash_of_sources(experiment),
        versions=list(experiment.get("dependencies") or []),
    )


def _checkpoint(run: Run) -> str | None:
    places = [str(row["path"]) for row in run.record.checkpoints]
    return next((p for p in reversed(places) if "://" in p or Path(p).is_dir()), None)
