"""One line of a journal: an event, or something else, which must not disturb whoever reads it."""

import json
from typing import Any

from scaling_fl.core.json_text import number

Event = dict[str, Any]

_NEEDED: dict[str, dict[str, type]] = {
    "resume": {"round": int},
    "round": {"round": int},
    "checkpoint": {"round": int, "path": str},
    "stage": {"text": str},
    "note": {"text": str},
    "end": {"status": str},
}
_OPTIONAL: dict[str, type] = {
    "time": str,
    "metrics": dict,
    "baseline": dict,
    "clients": list,
    "failures": list,
    "stopped_by": str,
    "budgets": list,
}
_OF_BUDGET: dict[str, type] = {"setting": str, "metric": str, "most": float, "spent": float}


def parse_line(line: bytes) -> Event:
    """Read one line; a line that is no event becomes a note that says so."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if _is_event(event):
        if "metrics" in event:
            event["metrics"] = {name: number(value) for name, value in event["metrics"].items()}
        return dict(event)
    text = "a line of the journal is not an event and was left out."
    return {"event": "note", "level": "warning", "text": text}


def _is_event(event: Any) -> bool:
    """Say whether an event has what its readers rely on."""
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return False
    needed = _NEEDED.get(event["event"], {})
    if not all(name in event and _is(event[name], kind) for name, kind in needed.items()):
        return False
    if not all(_is(event[name], kind) for name, kind in _OPTIONAL.items() if name in event):
        return False
    rows, failures = event.get("clients", []), event.get("failures", [])
    values = event.get("metrics", {}).values()
    return (
        all(_is(row, dict) for row in [*rows, *failures])
        and all(_is_budget(row) for row in event.get("budgets", []))
        and all(_is(row.get("client"), int) for row in failures)
        and all(value is None or _is(value, float) for value in values)
    )


def _is_budget(row: Any) -> bool:
    if not isinstance(row, dict) or row.keys() != _OF_BUDGET.keys():
        return False
    return all(_is(row[name], kind) for name, kind in _OF_BUDGET.items()) and bool(row["most"] > 0)


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return isinstance(value, kind)


def payload_of(event: Event) -> dict[str, Any]:
    """Return what an event says, without its name and its time."""
    return {key: value for key, value in event.items() if key not in ("time", "event")}
