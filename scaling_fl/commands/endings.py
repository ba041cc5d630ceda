"""How the commands on saved states end: with an exit code, and an error in one sentence."""

import sys
from collections.abc import Callable
from pathlib import Path

from scaling_fl.config import ConfigurationError
from scaling_fl.core.errors import UserError
from scaling_fl.runtime.environment import load_environment

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
_ROOT = Path(__file__).parents[2]


class Misused(UserError):
    """Options that cannot be meant; the text is one sentence."""


def run_command(name: str, action: Callable[[], None]) -> int:
    """Run what a command does and return its exit code; standard error says what went wrong."""
    try:
        load_environment(_ROOT)
        action()
    except ConfigurationError as error:
        return _say(
            name, "; ".join(str(problem).rstrip(".") for problem in error.problems), MISUSED
        )
    except Misused as error:
        return _say(name, str(error), MISUSED)
    except UserError as error:
        return _say(name, str(error), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def stage(text: str) -> None:
    """Say what is being done; standard output is for results."""
    print(text, file=sys.stderr, flush=True)


def _say(name: str, sentence: str, exit_code: int) -> int:
    print(f"{name}: {sentence.rstrip('.')}.", file=sys.stderr)
    return exit_code
