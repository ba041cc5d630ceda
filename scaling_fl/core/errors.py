"""How a command is ended early: by what the user gave, or by a signal."""

import signal
import threading


class UserError(Exception):
    """The program cannot do what the user asked for; the text is one sentence: rule, value, remedy.

    Commands print the text alone. Every other exception is a fault of the program and is shown
    with its traceback. A subclass exists only where code must distinguish it from the others.
    """


class InputError(UserError):
    """What was given must be changed: settings, options or data. To try again would be in vain."""


def stop_signals() -> list[signal.Signals]:
    """List the signals that end a command in good order.

    A closed terminal (SIGHUP) and Ctrl-\\ (SIGQUIT) do as SIGTERM does, unless the caller has had
    them ignored, as ``nohup`` has. There are none in a thread that is not the main one, such as a
    web server's: the program around it has signals of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    of_terminals = (signal.SIGHUP, signal.SIGQUIT)
    heard = [n for n in of_terminals if signal.getsignal(n) is not signal.SIG_IGN]
    return [signal.SIGINT, signal.SIGTERM, *heard]


def ignore(number: int, frame: object) -> None:
    """Handle a signal by doing nothing; unlike SIG_IGN, no process that is started inherits it."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the command; Sacred stores ``STATUS`` as the status of the run."""

    STATUS = "INTERRUPTED"

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        by_key = signal_number == signal.SIGINT
        self.exit_code = 128 + (signal.SIGINT if by_key else signal.SIGTERM)
