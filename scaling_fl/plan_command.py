"""The command that predicts: the training command's settings -> what they will cost."""

import json
import sys
from pathlib import Path
from typing import Any

from scaling_fl.config import Config, ConfigurationError, read_config
from scaling_fl.environment import load_environment
from scaling_fl.experiment import Refused, RunObserver, keep_names_as_typed, make_settings
from scaling_fl.reporting.plan import render
from scaling_fl.runtime.secret_manager import SecretUnavailable


def main(script: str, doc: str | None, argv: list[str]) -> int:
    """Run the command line; returns the exit code."""
    as_json = "--json" in argv
    argv = [argument for argument in argv if argument != "--json"]
    root = Path(script).resolve().parent.parent
    try:
        load_environment(root)
    except SecretUnavailable as error:
        raise Refused(f"Error: {error}") from None
    experiment = make_settings(root, doc)
    experiment.observers.append(RunObserver())  # Sacred warns of a run without any

    @experiment.config_hook
    def check(config: dict[str, Any], command_name: str, logger: object) -> dict[str, Any]:
        if command_name == "plan":
            _checked(config)
        return {}

    @experiment.main
    def plan(_config: dict[str, Any]) -> None:
        _print_prediction(_checked(_config), as_json=as_json)

    experiment.run_commandline(keep_names_as_typed(argv))
    return 0


def _checked(settings: dict[str, Any]) -> Config:
    try:
        return read_config(settings)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _print_prediction(config: Config, *, as_json: bool) -> None:
    # Takes seconds to import, which a wrong setting is spared.
    from scaling_fl.build import USER_ERRORS
    from scaling_fl.planning import predict

    def note(text: str) -> None:
        print(text, file=sys.stderr)

    try:
        prediction = predict(config, note).to_json()
    except USER_ERRORS as error:
        raise Refused(f"Error: {error}") from None
    print(json.dumps(prediction) if as_json else render(prediction))
