"""The command ``scripts/flower_run.py``: a federation on Flower, simulated on this machine."""

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from scaling_fl.commands.caller import script
from scaling_fl.commands.command_line import read_command_line
from scaling_fl.commands.endings import (
    MISUSED,
    ROOT,
    Misused,
    end,
    raise_on_signals,
    show,
    stage,
)
from scaling_fl.core.errors import InputError, UserError
from scaling_fl.flower.control import COMPLETED, Control, FlowerRun
from scaling_fl.flower.following import Following
from scaling_fl.flower.marked import ask_to_end
from scaling_fl.flower.output import Filter
from scaling_fl.flower.programs import TYPED, check_installed
from scaling_fl.flower.simulation import NODES, simulation

NUM_NODES = 2
"""Simulated nodes, if nobody says how many."""

_TRAINING = "scaling_fl.commands.training_over_nodes"
_CLOSING_SECONDS = 30.0
_BEFORE = re.compile(r"^(Simulation|ServerApp) failed with exception: ")
_CODE = re.compile(r"^the run ended with exit code (\d+)\b")


def split_at_with(words: list[str]) -> tuple[list[str], list[str]]:
    """Part what stands before the first ``with`` from what follows it."""
    if "with" not in words:
        return words, []
    place = words.index("with")
    return words[:place], words[place + 1 :]


def main(
    words: Sequence[str], *, federation: Mapping[str, Any], app: Path, is_secure: bool = False
) -> int:
    """Run an app with the ``words`` after ``with`` in a simulation; returns the exit code."""
    raise_on_signals()
    return end(partial(_run, words, federation, app, is_secure))


def _run(words: Sequence[str], federation: Mapping[str, Any], app: Path, is_secure: bool) -> None:
    check_installed(needs_ray=True)
    check_words(words, app)
    stage("starting Flower's simulation")
    typed = {TYPED: f"{script('flower_run.py')}{_options(federation)}"}
    with simulation(os.environ | typed, _memory()) as running:
        run_to_the_end(
            running.control,
            running.mark,
            words,
            app,
            running.is_alive,
            federation=federation,
            is_secure=is_secure,
        )


def _options(federation: Mapping[str, Any]) -> str:
    nodes = federation["num-supernodes"]
    return "" if nodes == NUM_NODES else f" --nodes {nodes}"


def _memory() -> Path:
    """Return where flwr run, typed in this folder and shell, has the nodes remember."""
    return Path(os.environ.get("FLWR_HOME") or ".flwr").expanduser() / NODES


def check_words(words: Sequence[str], app: Path, *, has_data: bool = True) -> None:
    """Refuse settings now that the app would refuse when all has been started.

    Raises:
        InputError: they cannot be meant.
    """
    if not words:
        raise Misused("with must be followed by settings, got none; type with demo, or others")
    if app == ROOT:
        line = read_command_line(["train_federated.py", "with", *words])
        line.config(environ=os.environ, has_data=has_data)


def run_to_the_end(
    control: Control,
    mark: str,
    words: Sequence[str],
    app: Path,
    is_alive: Callable[[], bool],
    *,
    federation: Mapping[str, Any] | None = None,
    is_secure: bool = False,
) -> None:
    """Submit an app, show what it prints, and end its run in good order if this is interrupted.

    Raises:
        UserError: the run did not complete.
    """
    settings: dict[str, Any] = {"with": shlex.join(words)}
    settings |= {"secure-sum": True} if is_secure else {}  # another app may not have that key
    run_id = control.submit(app, settings, federation)
    following = Following(control, run_id, _shown(), is_alive)
    try:
        found = following.until_over()
    except KeyboardInterrupt:
        with suppress(UserError):
            _interrupt(following, mark)
        raise
    if found.status != COMPLETED:
        raise _failure(found)


def _interrupt(following: Following, mark: str) -> None:
    """Have the training command record where it was, and show what it says; then end the run."""
    is_asked = ask_to_end(mark, _TRAINING)
    if not (is_asked and following.until_over(_CLOSING_SECONDS).is_over):
        following.control.stop(following.run_id)


def _shown() -> Callable[[str], None]:
    keep = Filter()

    def show_line(line: str) -> None:
        text = keep(line)
        if text is not None:
            show(text)

    return show_line


def _failure(found: FlowerRun) -> UserError:
    """Say why a run failed, or that the training command has said so, and end with its code."""
    why = _BEFORE.sub("", " ".join(found.details.split()))
    if code := _CODE.search(why):
        text = "the run on Flower failed; the line above that starts with Error: says why"
        return InputError(text) if int(code[1]) == MISUSED else UserError(text)
    how = found.status.rpartition(":")[2]
    return UserError(f"the run on Flower {how if why in ('', 'N/A') else f'{how}: {why}'}")
