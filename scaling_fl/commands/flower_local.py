"""The command ``scripts/flower_local.py``: real nodes of Flower on this machine, with TLS."""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from scaling_fl.commands.caller import script
from scaling_fl.commands.endings import Misused, end, raise_on_signals, show, stage
from scaling_fl.commands.flower_run import check_words, run_to_the_end
from scaling_fl.core.errors import UserError
from scaling_fl.core.places import MEMORY
from scaling_fl.flower.deploying import start, stop
from scaling_fl.flower.deployment import SUPERLINK, TEST, TRAIN, Deployment, read_deployment
from scaling_fl.flower.programs import TYPED, check_installed
from scaling_fl.flower.superlink import HOST
from scaling_fl.reporting.summary import size
from scaling_fl.runtime.record.turns import remembered_jobs

NAME = "flower_local.py"


def main_start(folder: Path, num_nodes: int | None, tables: Mapping[str, str | None]) -> int:
    """Start a deployment; ``tables`` by option. Returns the exit code."""
    given = {option: table for option, table in tables.items() if table is not None}
    return _end(partial(_start, folder, num_nodes, given))


def main_status(folder: Path) -> int:
    """Say what of a deployment runs; returns the exit code."""
    return _end(partial(_status, folder))


def main_run(folder: Path, words: Sequence[str], app: Path, *, is_secure: bool = False) -> int:
    """Run an app with the ``words`` after ``with`` on the nodes; returns the exit code."""
    return _end(partial(_run, folder, words, app, is_secure))


def main_forget(folder: Path, job: str | None) -> int:
    """Have nodes forget a job, or list what they remember; returns the exit code."""
    return _end(partial(_forget, folder, job))


def main_stop(folder: Path) -> int:
    """End a deployment; returns the exit code."""
    return _end(partial(_stop, folder))


def _end(action: Callable[[], None]) -> int:
    raise_on_signals()
    return end(action)


def _start(folder: Path, num_nodes: int | None, tables: Mapping[str, str]) -> None:
    check_installed()
    if num_nodes is not None and num_nodes < 1:
        raise Misused(f"--nodes must be at least 1, got {num_nodes}")
    if "--test-data" in tables and not ({"--data"} & tables.keys() or _have_data(folder)):
        raise Misused("--test-data needs --data: nodes without data of their own train on no rows")
    environ = os.environ | {TYPED: _command("run", folder)}
    found, started = start(folder, num_nodes, tables, environ, stage)
    if not started:
        show(f"The deployment in {folder} is running already; nothing was started.")
    elif SUPERLINK not in started:
        show(f"Started again in {folder}: {', '.join(started)}.")
    else:
        _tell(found, folder)


def _tell(found: Deployment, folder: Path) -> None:
    port = found.programs[SUPERLINK].port
    show(f"A SuperLink listens on {HOST}:{port} (TLS; it takes registered nodes alone).")
    for name in found.nodes:
        own, tests = (found.node_folder(name) / file for file in (TRAIN, TEST))
        data = _rows(own) if own.exists() else "the data that settings name"
        data += f", and {_rows(tests)} to be tested by" if tests.exists() else ""
        show(f"{name} is online, with its key and its memory in {folder / name}, and {data}.")
    show(
        f"\nTo run on them:   {_command('run', folder)} with demo num_rounds=3"
        f"\nTo look at them:  {_command('status', folder)}"
        f"\nTo end them:      {_command('stop', folder)}"
    )


def _rows(path: Path) -> str:
    with path.open("rb") as file:
        count = sum(1 for _ in file)
    return f"{count} row{'' if count == 1 else 's'} of its own"


def _command(name: str, folder: Path) -> str:
    return f"{script(NAME)} {name} {shlex.quote(str(folder))}"


def _status(folder: Path) -> None:
    found = _deployment(folder)
    if not found.is_alive(SUPERLINK):
        alive = len(found.living())
        rest = f", but {alive} of its nodes are" if alive else ""
        show(f"The SuperLink is not running{rest}; type:\n  {_command('start', folder)}")
        return
    link = found.control(os.environ)
    status = link.nodes()
    show(f"SuperLink: running on {HOST}:{found.programs[SUPERLINK].port}")
    for name in found.nodes:
        seen = status.get(found.registered.get(name, ""), "unknown")
        # Flower takes a minute to see that a node has died.
        show(f"{name}: {seen if found.is_alive(name) else 'has ended'}")
    for run in link.runs():
        show(f"run {run.run_id}: {run.status}")


def _run(folder: Path, words: Sequence[str], app: Path, is_secure: bool) -> None:
    check_installed()
    found = _deployment(folder)
    if not found.is_alive(SUPERLINK):
        raise UserError(f"{folder} is not running; type:\n  {_command('start', folder)}")
    check_words(words, app, has_data=False)
    if Path(found.cwd) != Path.cwd():
        stage(f"the record of the run is written below {found.cwd}, where this was started")
    is_alive = partial(found.is_alive, SUPERLINK)
    control = found.control(os.environ)
    run_to_the_end(control, found.mark, words, app, is_alive, is_secure=is_secure)


def _forget(folder: Path, job: str | None) -> None:
    found = read_deployment(folder)
    nodes = [found.node_folder(name) for name in found.nodes] if found else [folder]
    jobs = [(node, each) for node in nodes for each in remembered_jobs(node / MEMORY)]
    chosen = [(node, each) for node, each in jobs if job in (None, each.name, each.uid)]
    if job and not chosen:
        known = ", ".join(sorted({each.name or each.uid for _, each in jobs})) or "none"
        raise UserError(f"JOB must be one that the nodes of {folder} remember ({known}), got {job}")
    if not chosen:
        show(f"Nothing is remembered in {folder}.")
    for node, each in chosen:
        clients = f"{each.num_clients} client{'s' * (each.num_clients != 1)}"
        what = f"{each.name} ({each.uid}): {clients}, {size(each.num_bytes)}"
        if job:
            each.forget()
        show(f"{node.name} {'has forgotten' if job else 'remembers'} {what}")


def _have_data(folder: Path) -> bool:
    found = read_deployment(folder)
    return found is not None and all((found.node_folder(n) / TRAIN).exists() for n in found.nodes)


def _stop(folder: Path) -> None:
    count = stop(folder)
    show(f"Ended {count} processes." if count else f"Nothing of {folder} was running.")


def _deployment(folder: Path) -> Deployment:
    found = read_deployment(folder)
    if found is None:
        raise UserError(
            f"{folder} must hold a deployment and does not; type:\n  {_command('start', folder)}"
        )
    return found
