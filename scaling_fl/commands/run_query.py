"""Which runs are meant: places that hold runs, and conditions on what they are and came to."""

import difflib
import operator
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from scaling_fl.commands.endings import Misused, stage
from scaling_fl.config.typed import read_value
from scaling_fl.core.errors import UserError
from scaling_fl.reporting.run_rows import RunRow, flat, names_in
from scaling_fl.runtime.redaction import redact, secrets_of
from scaling_fl.runtime.tracking.listing import places_of_runs, read_many
from scaling_fl.runtime.tracking.run_files import plain
from scaling_fl.runtime.tracking.runs import Run, from_here

_CONDITION = re.compile(r"([\w.]+)\s*(<=|>=|!=|=|<|>)\s*(.*)", re.S)
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class RunCondition:
    """A column, metric or setting, and what it must be; texts are patterns such as ``sweep-*``."""

    name: str
    sign: str
    wanted: Any

    def holds(self, row: RunRow) -> bool:
        """Say whether a run meets it; what a run does not have meets only ``!=``."""
        found = row.value(self.name)
        if self.sign in _ORDERS:
            is_number = isinstance(found, int | float) and not isinstance(found, bool)
            return is_number and _ORDERS[self.sign](found, self.wanted)
        return self._is_wanted(found) == (self.sign == "=")

    def _is_wanted(self, found: Any) -> bool:
        if isinstance(found, str) and self.wanted is not None:
            return fnmatchcase(found.casefold(), str(self.wanted).casefold())
        return bool(found == self.wanted)


def read_condition(text: str, option: str) -> RunCondition:
    """Read ``name=value``, or a comparison such as ``validation.accuracy>0.8``.

    Raises:
        Misused: it is neither; it was given as ``option``.
    """
    match = _CONDITION.fullmatch(text.strip())
    if not match:
        raise Misused(
            f"{option} must be name=value, name!=value or a comparison such as "
            f"validation.accuracy>0.8, got {text!r}; name a column, a metric or a setting."
        )
    name, sign, value = match.groups()
    wanted = read_value(name, value)
    if sign in _ORDERS and not isinstance(wanted, int | float):
        raise Misused(f"{option} {name}{sign} must compare with a number, got {value!r}; give one.")
    return RunCondition(name, sign, wanted)


def read_places(places: Sequence[str], *, with_clients: bool) -> list[Run]:
    """Read the runs at the places; one that cannot be read is told of, and left out.

    Raises:
        UserError: there is no such place.
    """
    named = [name for place in places for name in places_of_runs(place)]

    def tell(place: str, error: UserError) -> None:
        stage(f"warning: {place} is left out: {error}")

    return list(read_many(dict.fromkeys(named), with_clients=with_clients, left_out=tell))


def row_of(run: Run) -> RunRow:
    """Make the row of a run.

    A journal and settings may hold the password of an address, which nothing is to show.
    """
    clean = partial(redact, secrets=secrets_of(os.environ))
    record, settings = run.record, dict(flat(plain(run.config, clean)))
    last = {name: series["values"][-1] for name, series in record.metrics.items()}
    seconds = record.metrics.get("time.round_seconds")
    total = last.get("bytes.total")
    return RunRow(
        run=from_here(str(run.folder)) if run.folder else run.where,
        job=record.job_name,
        status=run.status,
        task=settings.get("task_name"),
        rounds=record.last_round,
        num_rounds=run.num_rounds,
        bytes=None if total is None else int(total),
        epsilon=last.get("privacy.epsilon"),
        seconds=sum(seconds["values"]) if seconds else None,
        message=clean(record.message) if record.message else None,
        stopped_by=record.stopped_by,
        started=_started(run),
        host=record.host,
        settings=settings,
        metrics=last,
    )


def _started(run: Run) -> str | None:
    """Say when the job first began, in UTC, as its journal and what was made of it both do."""
    moment = run.record.history[0].get("start_time") if run.record.history else None
    return f"{moment}+00:00" if moment else None


def select(rows: Sequence[RunRow], conditions: Iterable[RunCondition]) -> list[RunRow]:
    """Keep the rows that meet all conditions.

    Raises:
        Misused: a condition names what no run has.
    """
    conditions = list(conditions)
    if rows:
        known = names_in(rows)
        for condition in conditions:
            check_known(condition.name, known)
    return [row for row in rows if all(condition.holds(row) for condition in conditions)]


def check_known(name: str, known: Sequence[str]) -> None:
    """Check that some run has a column, metric or setting of a name.

    Raises:
        Misused: none has.
    """
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        remedy = f"use {' or '.join(near)}" if near else "see --json for all names"
        raise Misused(f"no run has a column, metric or setting {name}; {remedy}")
