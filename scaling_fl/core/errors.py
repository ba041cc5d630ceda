"""The one kind of error whose text is all that a user needs."""


class UserError(Exception):
    """What the user gave cannot be done; the text is one sentence: rule, value, remedy.

    Commands print the text alone. Every other exception is a fault of the program and is shown
    with its traceback. A subclass exists only where code has to tell it from the others.
    """
