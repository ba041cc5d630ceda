"""Say what a run came to, in the lines that close it."""

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from scaling_fl.core.metric_names import is_of_all

MAX_FAILURE_LINES = 10
MAX_CLIENT_NAME = 30
SHOWN_METRICS = ("validation", "download", "train", "privacy")
ENDINGS = {
    "COMPLETED": "completed",
    "DEGRADED": "completed, but degraded: clients were left out",
    "INTERRUPTED": "interrupted",
    "FAILED": "failed",
    "DEAD": "died",
    "RUNNING": "is running",
}
PLACES = {
    "run": "run_dir",
    "not recorded": "missing",
    "checkpoints": "checkpoints",
    "journal": "journal",
}


def summary(record: Mapping[str, Any] | None = None, /, **facts: Any) -> str:
    """Write the closing summary of a run from plain data, given as a mapping or as keywords.

    Known facts, all of them optional: ``status``, ``message``, ``job_name``, ``last_round``,
    ``num_rounds``, ``metrics`` (a name to its last value, or to its series of ``values``, which
    gives the exact bytes of the whole run), ``failures`` (``client``, ``reason``, ``round``, and
    ``name`` where clients have names), ``stopped_by`` (which rule ended the run early, and why),
    ``run_dir``, ``checkpoints``, ``journal``, ``database``, ``seconds`` (since this start),
    ``scripts`` (what to type to start a script, by its name, for a run whose state ``is_saved``),
    ``resume_command``, ``further`` (how to change that command once all rounds are done).
    """
    facts = {**(record or {}), **facts}
    metrics = facts.get("metrics") or {}
    rows = [*_metric_rows(metrics), *_byte_rows(metrics), *_time_rows(facts, metrics)]
    rows += [(name, str(facts[key])) for name, key in PLACES.items() if facts.get(key)]
    if facts.get("database"):
        rows.append(("database", str(facts["database"])))
    width = max((len(name) for name, _ in rows), default=0)
    lines = [_headline(facts), *_failure_lines(facts.get("failures") or [])]
    lines += [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, *_next_lines(facts), *_resume_lines(facts)])


def how_to_train_further(
    config: Mapping[str, Any], num_rounds: int, stopped_by: str | None = None
) -> str | None:
    """Say how the resume command trains beyond the last round, if a run of this kind can.

    ``config`` holds the settings as they are stored, ``num_rounds`` is where the job really ends,
    and ``stopped_by`` is the rule that has ended it before that.
    """
    if stopped_by:
        setting = stopped_by.partition("=")[0]
        return f"give {'another' if setting.endswith('.target') else 'a larger'} {setting} to"
    if num_rounds < config.get("num_rounds", num_rounds):
        return "give a larger privacy.max_epsilon to"
    if (config.get("privacy") or {}).get("target_epsilon") is not None:
        return None  # the noise was chosen for these rounds
    return "give a larger num_rounds to"


def client_title(client: int, name: str | None) -> str:
    """Write which client it is, by its number and its name, if it has one."""
    if name is None:
        return f"client {client}"
    shown = name if len(name) <= MAX_CLIENT_NAME else f"{name[: MAX_CLIENT_NAME - 1]}…"
    return f"client {client} ({shown})"


def size(num_bytes: float) -> str:
    """Write a number of bytes in powers of ten: 1 MB is 10^6 bytes."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{int(num_bytes)} bytes"


def _headline(facts: Mapping[str, Any]) -> str:
    status = str(facts.get("status") or "")
    job = f"Job {facts['job_name']}" if facts.get("job_name") else "The run"
    text = f"{job} {ENDINGS.get(status.upper(), f'ended as {status or None}')}"
    if facts.get("num_rounds"):
        text += f", {facts.get('last_round', 0)} of {facts['num_rounds']} rounds"
    if facts.get("stopped_by"):
        text += f", ended by {facts['stopped_by']}"
    return f"{text}: {facts['message']}" if facts.get("message") else f"{text}."


def _failure_lines(failures: Iterable[Mapping[str, Any]]) -> list[str]:
    rounds: dict[tuple[Any, Any], list[Any]] = {}
    for failure in failures:
        client = client_title(failure["client"], failure.get("name"))
        key = client, failure.get("reason") or "no reason given"
        rounds.setdefault(key, []).append(failure.get("round"))
    lines = [
        f"  {client} was left out{_of_rounds(numbers)}: {reason}"
        for (client, reason), numbers in rounds.items()
    ]
    if len(lines) > MAX_FAILURE_LINES:
        more = len(lines) - MAX_FAILURE_LINES
        lines[MAX_FAILURE_LINES:] = [f"  and {more} more, see info.json of the run"]
    return lines


def _of_rounds(numbers: list[Any]) -> str:
    known = [str(number) for number in numbers if number is not None]
    if not known:
        return ""
    shown = ", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else "")
    return f" of round{'s' if len(known) > 1 else ''} {shown}"


def _metric_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    # A task may have many metrics of single classes.
    of_tiers = re.compile(r"validation\.accuracy\.tier\d+")
    names = [name for name in metrics if is_of_all(name) or of_tiers.fullmatch(name)]
    return [
        (name, f"{_values(metrics[name])[-1]:.4f}{_best(name, metrics[name])}")
        for group in SHOWN_METRICS
        for name in sorted(names)
        if name.startswith(f"{group}.") and _values(metrics[name])
    ]


def _best(name: str, metric: Any) -> str:
    """Say which round had the best accuracy, where that is not the last one."""
    if name != "validation.accuracy" or not isinstance(metric, Mapping):
        return ""
    values = _values(metric)
    best = max(values)
    if not values[-1] < best:
        return ""
    return f", best {best:.4f} in round {metric['steps'][values.index(best)]}"


def duration(seconds: float) -> str:
    """Write a time in the two largest units that it has: 12.3 s, 1 min 12 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _time_rows(facts: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    rounds = _values(metrics.get("time.round_seconds", {"values": []}))
    mean = f"{duration(sum(rounds) / len(rounds))} a round" if rounds else ""
    taken = duration(facts["seconds"]) if facts.get("seconds") else ""
    text = ", ".join(part for part in (taken, mean) if part)
    return [("time taken", text)] if taken else []


def _next_lines(facts: Mapping[str, Any]) -> list[str]:
    """Name what can be done with a run that has saved a state."""
    scripts, run = facts.get("scripts"), facts.get("run_dir")
    if not (scripts and run and facts.get("is_saved")):
        return []
    run = shlex.quote(str(run))
    folder = f"models/{facts.get('job_name') or 'new'}"
    return [
        "To evaluate it, to export it as a model, and to see it again:",
        f"  {scripts['evaluate.py']} {run}",
        f"  {scripts['merge_adapter.py']} {run} --out {folder}",
        f"  {scripts['watch.py']} {run}",
    ]


def _byte_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, metric in (("bytes down", "bytes.download"), ("bytes up", "bytes.upload")):
        if metric in metrics:
            whole = isinstance(metrics[metric], Mapping)
            text = _exact(sum(_values(metrics[metric])))
            rows.append((name, text if whole else f"{text} in the last round"))
    if "bytes.total" in metrics:
        total = _values(metrics["bytes.total"])[-1]
        rows.append(("bytes in all", _exact(total) + _against_plain(total, metrics)))
    return rows


def _against_plain(total: float, metrics: Mapping[str, Any]) -> str:
    """Say what fp32 without codecs and masks would have taken, where that is more."""
    if not isinstance(metrics.get("bytes.plain"), Mapping):
        return ""
    plain = sum(_values(metrics["bytes.plain"]))
    return f", {total / plain:.2%} of {size(plain)} as plain fp32" if plain > total else ""


def _exact(num_bytes: float) -> str:
    if num_bytes < 1000:
        return size(num_bytes)
    return f"{size(num_bytes)} ({int(num_bytes):,} bytes)"


def _resume_lines(facts: Mapping[str, Any]) -> list[str]:
    if not facts.get("resume_command"):
        return []
    # A run that failed after its last round could not save it: the same command goes on.
    completed = str(facts.get("status") or "COMPLETED").upper() in ("COMPLETED", "DEGRADED")
    all_rounds = bool(facts.get("num_rounds")) and facts["num_rounds"] == facts.get("last_round")
    done = completed and (all_rounds or bool(facts.get("stopped_by")))
    if done and not facts.get("further"):
        return []
    how = f"To train further, {facts['further']}" if done else "To resume"
    return [f"{how}:", f"  {facts['resume_command']}"]


def _values(metric: Any) -> list[float]:
    return list(metric["values"]) if isinstance(metric, Mapping) else [float(metric)]
