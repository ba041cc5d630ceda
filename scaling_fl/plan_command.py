"""The command that predicts: the training command's settings -> what they will cost."""

import json
import sys
from pathlib import Path
from typing import Any

from scaling_fl.config import ConfigurationError, read_config
from scaling_fl.environment import load_environment
from scaling_fl.experiment import Refused, keep_names_as_typed, make_settings
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

    @experiment.main
    def plan(_config: dict[str, Any]) -> None:
        _print_prediction(_config, as_json=as_json)

    experiment.run_commandline(keep_names_as_typed(argv))
    return 0


def _print_prediction(settings: dict[str, Any], *, as_json: bool) -> None:
    try:
        config = read_config(settings)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
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
