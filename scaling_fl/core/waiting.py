"""How long anything is waited for, and how a wait is told: the one place for these limits.

===================================  =====================================================
what is waited for                   limit
===================================  =====================================================
anything that may be slow            said after ``SAY_AFTER_SECONDS``, again every minute
other machines, at the start         ``SCALING_FL_JOIN_SECONDS`` (900)
another worker, while it runs        ``SCALING_FL_SILENCE_SECONDS`` (20) without a sign of life
an object store: to connect          ``CONNECT_SECONDS``
an object store: each answer         ``ANSWER_SECONDS``, then retried as ``runtime.storage`` says
the model hub: whether it is there   ``HUB_SECONDS``
===================================  =====================================================
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from scaling_fl.core.errors import UserError

SAY_AFTER_SECONDS = 5.0
SAY_AGAIN_SECONDS = 60.0
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0
HUB_SECONDS = 10.0


def join_seconds(environ: Mapping[str, str] = os.environ) -> float:
    """Return how long machines wait for each other when they start.

    Raises:
        UserError: the variable is not a number of seconds.
    """
    return _seconds(environ, "SCALING_FL_JOIN_SECONDS", 900.0)


def silence_seconds(environ: Mapping[str, str] = os.environ) -> float:
    """Return how long a worker may give no sign of life before it counts as lost.

    Raises:
        UserError: the variable is not a number of seconds.
    """
    return _seconds(environ, "SCALING_FL_SILENCE_SECONDS", 20.0)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise UserError(f"{name} must be a number of seconds, got {text!r}; correct it.")
    return value


class Waiting:
    """Tells what is waited for: at once, and then every minute as long as it stays the same."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._text, self._again = say, "", 0.0

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if text != self._text or now >= self._again:
            self._text, self._again = text, now + SAY_AGAIN_SECONDS
            self._say(text)


@contextmanager
def told_when_slow(what: str, *, after_seconds: float = SAY_AFTER_SECONDS) -> Iterator[None]:
    """Say on standard error what is waited for, if the block takes longer than some seconds.

    In a worker, the command that started it shows these lines.
    """
    is_over = threading.Event()

    def tell() -> None:
        began, pause = time.monotonic(), after_seconds
        while not is_over.wait(pause):
            seconds = time.monotonic() - began
            print(f"waiting for {what} ({seconds:.0f} s)", file=sys.stderr, flush=True)
            pause = SAY_AGAIN_SECONDS

    thread = threading.Thread(target=tell, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
