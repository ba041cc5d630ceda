"""What the scripts that take settings do before anything heavy loads: help, settings, errors."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scaling_fl.commands.caller import script
from scaling_fl.commands.command_line import CommandLine, read_command_line
from scaling_fl.commands.endings import Misused, end, show
from scaling_fl.config import Config, ConfigurationError, describe
from scaling_fl.reporting.folding import width_of
from scaling_fl.runtime.machines.node import Node, PlacementError, read_node

PRINT_CONFIG = "print_config"
NARROW, WIDE = 80, 110
"""Columns of the page of settings: where the reader's are not known, and at most."""


@dataclass(frozen=True)
class Checked:
    """A command line whose settings can be run."""

    line: CommandLine
    config: Config
    node: Node


def read_training(
    doc: str | None, argv: Sequence[str], *, has_data: bool = True
) -> tuple[Checked | None, int]:
    """Read the training command; None when nothing is left to do, with the exit code.

    With ``has_data=False`` the training data is elsewhere.
    """
    return _read(
        lambda: read_command_line(argv, commands=[PRINT_CONFIG], options={"--comment": "-c"}),
        doc,
        os.environ,
        has_data=has_data,
    )


def read_plan(doc: str | None, argv: Sequence[str]) -> tuple[Checked | None, int]:
    """Read the command that plans a training command, as ``read_training`` reads that."""
    return _read(
        lambda: read_command_line(argv, flags={"--json": "", "--time": "", "--secure-sum": ""}),
        doc,
        needs_weights=False,
    )


def read_look(doc: str | None, argv: Sequence[str]) -> tuple[Checked | None, int]:
    """Read the command that looks at the data of a training command."""
    return _read(lambda: read_command_line(argv, flags={"--json": ""}, options={"--out": ""}), doc)


def _read(
    read: Callable[[], CommandLine],
    doc: str | None,
    environ: Mapping[str, str] | None = None,
    *,
    has_data: bool = True,
    needs_weights: bool = True,
) -> tuple[Checked | None, int]:
    found: list[Checked] = []

    def action() -> None:
        line = read()
        if line.wants_help:
            show((doc or "").strip())
        elif line.command == PRINT_CONFIG:
            width = min(width_of(sys.stdout) or NARROW, WIDE)
            show(describe(line.settings, colour=sys.stdout.isatty(), width=width))
            line.config(has_data=False, needs_weights=False)
        else:
            found.append(check(line, environ, has_data=has_data, needs_weights=needs_weights))

    code = end(action)
    return (found[0] if found else None), code


def check(
    line: CommandLine,
    environ: Mapping[str, str] | None,
    *,
    has_data: bool = True,
    needs_weights: bool = True,
) -> Checked:
    """Check the settings of a command line; with ``environ`` also the secrets that they need.

    With ``has_data=False`` the training data need not be here. With ``needs_weights=False`` the
    model may be a config.json alone.

    Raises:
        UserError: they cannot be run; a ConfigurationError has all that is wrong about them.
    """
    typed = line.typed
    if not (typed.named or typed.values or typed.problems):
        raise Misused(
            "settings must say what to train on, got none; try first:\n"
            f"  {script(line.script)} with demo"
        )
    try:
        ids = line.settings["site_ids"]
        node = read_node(ids, os.environ) if _is_ids(ids) else None
        config = line.config(
            num_nodes=node.num_nodes if node else 1,
            environ=environ,
            has_data=has_data,
            needs_weights=needs_weights,
        )
    except (ConfigurationError, PlacementError):
        _let_the_first_process_tell()
        raise
    assert node
    return Checked(line, config, node)


def _is_ids(ids: object) -> bool:
    return isinstance(ids, list) and bool(ids) and all(isinstance(i, int) for i in ids)


def _let_the_first_process_tell() -> None:
    """Leave an error that all processes of torchrun meet to the first, whose end ends them all."""
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("LOCAL_RANK") != "0":
        time.sleep(15)
