"""How a command is ended early: by what the user gave, or by a signal."""

import signal


class UserError(Exception):
    """The program cannot do what the user asked for; the text is one sentence: rule, value, remedy.

    Commands print the text alone. Every other exception is a fault of the program and is shown
    with its traceback. A subclass exists only where code must distinguish it from the others.
    """


class InputError(UserError):
    """What was given must be changed: settings, options or data. To try again would be in vain."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the command; Sacred stores ``STATUS`` as the status of the run."""

    STATUS = "INTERRUPTED"

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number
