"""The command that plans reads the settings of the training command, and trains nothing."""

import sys
from pathlib import Path
from typing import Any

from scaling_fl.commands.train import Refused, RunObserver, keep_names_as_typed, make_settings
from scaling_fl.config import Config, ConfigurationError, read_config
from scaling_fl.runtime.environment import load_environment
from scaling_fl.runtime.secret_manager import SecretUnavailable


def read_settings(script: str, doc: str | None, argv: list[str]) -> Config | None:
    """Read a command line as the training command does; None when it asked for something else.

    Exits with 2, and every problem on standard error, when the settings cannot be run.
    """
    root = Path(script).resolve().parent.parent
    try:
        load_environment(root)
    except SecretUnavailable as error:
        raise Refused(f"Error: {error}") from None
    experiment = make_settings(root, doc)
    experiment.observers.append(RunObserver())  # Sacred warns of a run without any
    found: list[Config] = []

    @experiment.config_hook
    def check(config: dict[str, Any], command_name: str, logger: object) -> dict[str, Any]:
        if command_name == "plan":
            found.append(_checked(config))
        return {}

    @experiment.main
    def plan() -> None:
        """The work is left to the caller."""

    experiment.run_commandline(keep_names_as_typed(argv))
    return found[0] if found else None


def _checked(settings: dict[str, Any]) -> Config:
    try:
        return read_config(settings)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
