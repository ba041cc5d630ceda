"""How long anything is waited for, and how a wait is told: the one place for these limits.

=====================================  ====================================================
what is waited for                     limit
=====================================  ====================================================
anything that may be slow              said after ``SAY_AFTER_SECONDS``, then every minute
other machines, at the start           ``SCALING_FL_JOIN_SECONDS`` (900)
a sign of life of another worker       ``SCALING_FL_SILENCE_SECONDS`` (20)
an object store: to connect            ``CONNECT_SECONDS``
an object store: the next bytes        ``ANSWER_SECONDS``, with a few attempts
an object store: to take a file        ``WRITE_SECONDS``, and a second for ``WRITE_BYTES``
a model hub: its first answer          ``SERVER_SECONDS``
a data set or a packaged model         ``DOWNLOAD_SECONDS`` to be downloaded
=====================================  ====================================================
"""

import os
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from scaling_fl.core.errors import UserError

T = TypeVar("T")

SAY_AFTER_SECONDS = 5.0
SAY_AGAIN_SECONDS = 60.0
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
WRITE_SECONDS = 40.0
WRITE_BYTES = 200_000
SERVER_SECONDS = 10.0
DOWNLOAD_SECONDS = 1800.0


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
    # The block may redirect the stream to hide what a library says.
    is_over, stream = threading.Event(), sys.stderr

    def tell() -> None:
        began, pause = time.monotonic(), after_seconds
        while not is_over.wait(pause):
            seconds = time.monotonic() - began
            print(f"waiting for {what} ({seconds:.0f} s)", file=stream, flush=True)
            pause = SAY_AGAIN_SECONDS

    thread = threading.Thread(target=tell, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def bounded(action: Callable[[], T], *, seconds: float) -> T:
    """Return what an action returns, or give up on an action that may never return.

    The action runs in a thread, which is left behind when it is given up.

    Raises:
        TimeoutError: the action has not ended after ``seconds``.
    """
    outcome: list[tuple[T, None] | tuple[None, BaseException]] = []

    def run() -> None:
        try:
            outcome.append((action(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="bounded", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # there is a value where there is no error


def answers(url: str, what: str, *, seconds: float = SERVER_SECONDS) -> bool:
    """Say whether a server can be reached and answers anything; a wait is told with its name."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with told_when_slow(f"{what} {url} to answer"):
            urllib.request.urlopen(request, timeout=seconds).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)
    except OSError:
        return False
    return True
