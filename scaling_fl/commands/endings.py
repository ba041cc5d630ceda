"""How every command ends: one prefix on standard error, and one table of exit codes.

====  =======================================================================================
code  meaning
====  =======================================================================================
0     done (a run that left clients out is done, too: its status says DEGRADED)
1     failed: standard error has one sentence that starts with ``Error: ``
2     misused: the settings, options or data are refused; to try again would be in vain
130   interrupted by Ctrl-C
143   stopped by SIGTERM, by a closed terminal (SIGHUP) or by Ctrl-\\ (SIGQUIT)
====  =======================================================================================

A command that calls another program (``kubectl``, ``gcloud``) and sees it fail ends with the code
of that program. Every other exception is a fault of the program: its traceback is shown, code 1.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scaling_fl.core.errors import InputError, Interrupted, UserError, ignore, stop_signals
from scaling_fl.reporting.folding import fold, width_of
from scaling_fl.runtime.environment import load_environment
from scaling_fl.submission.clients import ClientFailed

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
ROOT = Path(__file__).parents[2]
"""The folder of the project, which may hold ``.env``."""


class Misused(InputError):
    """Options that cannot be meant."""


def end(action: Callable[[], object], *, with_environment: bool = True) -> int:
    """Do what a command does, say on standard error what went wrong, and return the exit code.

    ``with_environment`` first adds what ``.env`` says to the environment.
    """
    try:
        if with_environment:
            load_environment(ROOT)
        action()
    except UserError as error:
        return _tell(error)
    except Interrupted as interrupted:
        return interrupted.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def raise_on_signals() -> None:
    """Have Ctrl-C, SIGTERM and the like end the command in good order, by ``Interrupted``."""
    for number in stop_signals():
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    # Only once: a second signal must not cut the closing short. A hang-up comes beside others.
    for known in (number, signal.SIGHUP):
        signal.signal(known, ignore)
    raise Interrupted(number)


def stage(text: str) -> None:
    """Say what is being done; standard output is for results."""
    # A terminal that was closed is no reason to stop, either.
    with suppress(OSError):
        print(fold(text, width_of(sys.stderr)), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print a result. A reader that has seen enough, such as ``head``, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(error: UserError) -> int:
    text = str(error)
    if not text.rpartition("\n")[2].startswith("  "):  # a command, to be typed as it is
        text = f"{text.rstrip('.')}."
    stage(f"Error: {text}")
    if isinstance(error, ClientFailed):
        return error.exit_code
    return MISUSED if isinstance(error, InputError) else FAILED
