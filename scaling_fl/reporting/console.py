"""What a person sees while a run goes on: live bars on a terminal, plain lines anywhere else."""

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from scaling_fl.core.metric_names import is_of_all
from scaling_fl.reporting.folding import fold, width_of
from scaling_fl.reporting.picture import Picture
from scaling_fl.reporting.summary import client_title, size

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.live import Live

REDRAWS_PER_SECOND = 5
LONGEST_SILENCE_SECONDS = 15.0
"""Without a terminal, a line says at least as often what is under way."""
SHOWN_GROUPS = ("train", "validation", "privacy")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class Console:
    """Print what the events of a job say, and on a terminal keep the round under way below it.

    ``log`` receives every line, never a redraw. A stream that goes away is not an error: the run
    goes on and ``log`` still has everything. Any thread may print.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        log: Callable[[str], None] | None = None,
        *,
        num_rounds: int = 0,
    ) -> None:
        self._stream = _Stream(sys.stdout if stream is None else stream)
        self._log = log
        self._num_rounds = num_rounds  # until the job says that it ends earlier
        self._lock = threading.RLock()
        self._picture = Picture()
        self._client_names: list[str] = []
        self._rich: RichConsole | None = None
        self._live: Live | None = None
        self._closed = False
        self._last_line = time.monotonic()
        # These cannot move their cursor: bars would come out as a flood of lines.
        dumb = os.environ.get("TERM", "") in ("dumb", "unknown") or _is_in_notebook()
        self._animated = self._stream.isatty() and not dumb

    @property
    def is_animated(self) -> bool:
        """Whether what is shown can be redrawn."""
        return self._animated

    @property
    def is_silent(self) -> bool:
        """Whether the stream is gone, so that nobody reads what is printed."""
        return self._stream.is_silent

    def line(self, text: str) -> None:
        """Print a line, or several."""
        self._print(text)

    def warn(self, text: str) -> None:
        """Print a line that calls for attention."""
        self._print(f"warning: {text}", style="yellow")

    def show(self, event: Mapping[str, Any]) -> None:
        """Show one event of a job, whether a worker has just told it or its journal holds it.

        Events of other names show nothing. Without a terminal, progress is told by ``tick``.
        """
        match event["event"]:
            case "stage":
                self._stage(event["text"])
            case "line":
                self.line(event["text"])
            case "note" if event.get("level") == "warning":
                self.warn(event["text"])
            case "note":
                self.line(event["text"])
            case "resume" | "ready":
                self._resume(event)
            case "partition":
                self._picture.client_names = self._client_names = event.get("client_names") or []
            case "progress":
                self._picture.progress(event, self._num_rounds)
                if self._animated:
                    self._animate()
            case "round":
                self._round(event)

    def _stage(self, text: str) -> None:
        self._picture.stage = text
        if self._animated and not self._closed:
            self._record(text)
            self._animate()
        else:
            self._print(text)

    def tick(self) -> None:
        """Without a terminal, say what is under way if nothing was printed for a while.

        The log does not get this line: what is under way is no history.
        """
        if self._animated or self._closed:
            return
        with self._lock:
            if time.monotonic() - self._last_line < LONGEST_SILENCE_SECONDS:
                return
            if text := self._picture.line():
                self._write(text)

    def _resume(self, event: Mapping[str, Any]) -> None:
        done = event["round"]
        self._num_rounds = event.get("num_rounds") or self._num_rounds
        self._picture.resume(event, self._num_rounds)
        if event.get("stopped_by"):
            where = f"round {done} of {self._num_rounds}"
            self._print(f"nothing is left to do: {where} was the last by {event['stopped_by']}")
        elif done and done >= self._num_rounds:
            self._print(f"nothing is left to do: round {done} of {self._num_rounds} is done")
        elif done:
            self._print(f"resuming after round {done} of {self._num_rounds}")

    def _round(self, event: Mapping[str, Any]) -> None:
        """Print the line of a finished round, and one for each client that was left out."""
        number = event["round"]
        num_clients = event.get("num_clients", len(event.get("clients", ())))
        metrics = event.get("metrics", {})
        self._picture.finish(number, self._num_rounds, metrics)
        text = round_line(number, self._num_rounds, metrics, num_clients)
        self._print(text, style="bold")
        if event.get("stopped_by"):
            self._print(f"the run ends after round {number} by {event['stopped_by']}")
        for failure in event.get("failures", ()):
            reason = failure.get("reason") or "no reason given"
            name = dict(enumerate(self._client_names)).get(failure["client"])
            title = client_title(failure["client"], name)
            self.warn(f"round {number}: {title} was left out: {reason}")

    def close(self) -> None:
        """Take the bars away; lines can still be printed."""
        with self._lock:
            self._closed = True
            live, self._live = self._live, None
        if live:
            live.stop()

    def _print(self, text: str, *, style: str = "") -> None:
        with self._lock:
            lines = [_printable(line) for line in text.rstrip("\n").split("\n")]
            for line in lines:
                self._record(line)
            shown = fold("\n".join(lines), width_of(self._stream))
            if self._live and self._rich:
                from rich.text import Text

                self._rich.print(Text(shown, style), soft_wrap=True)
                self._stream.flush()
            else:
                self._write(shown)

    def _write(self, line: str) -> None:
        self._last_line = time.monotonic()
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def _record(self, line: str) -> None:
        if self._log:
            self._log(line)

    def _animate(self) -> None:
        with self._lock:
            if self._live or self._closed:
                return
            from rich.console import Console as RichConsole
            from rich.live import Live

            self._rich = RichConsole(
                file=self._stream,  # type: ignore[arg-type]
                force_terminal=True,
                highlight=False,
            )
            self._live = Live(
                get_renderable=self._picture.render,
                console=self._rich,
                refresh_per_second=REDRAWS_PER_SECOND,
                transient=True,
                redirect_stderr=sys.stderr.isatty(),
            )
            self._live.start()


def _is_in_notebook() -> bool:
    """Say whether a cell of a notebook has typed ``!command``; it gives that a terminal."""
    return "JPY_PARENT_PID" in os.environ


def round_line(round: int, num_rounds: int, metrics: Mapping[str, float], num_clients: int) -> str:
    """Say in one line what a round came to."""
    parts = [f"round {round}/{num_rounds}"]
    for group in SHOWN_GROUPS:
        # A task may have many metrics of single classes.
        names = [n for n in metrics if n.startswith(f"{group}.") and is_of_all(n)]
        if names:
            shown = [f"{name.partition('.')[2]} {metrics[name]:.4f}" for name in names]
            parts.append(f"{group} {', '.join(shown)}")
    facts = [f"{num_clients} client{'s' if num_clients != 1 else ''}"] if num_clients else []
    if "time.round_seconds" in metrics:
        facts.append(f"{metrics['time.round_seconds']:.1f} s")
    for name, direction in (("bytes.download", "down"), ("bytes.upload", "up")):
        if name in metrics:
            facts.append(f"{size(metrics[name])} {direction}")
    return " | ".join([*parts, ", ".join(facts)])


class _Stream:
    """A text stream that falls silent, instead of raising, when nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_silent = False
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        # What the terminal cannot show is replaced, not refused.
        shown = text.encode(self.encoding, "replace").decode(self.encoding)
        self._attempt(lambda: self._stream.write(shown))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def _attempt(self, action: Callable[[], object]) -> None:
        if self.is_silent:
            return
        try:
            action()
        except BlockingIOError:
            pass  # A reader that is only slow: this text is lost to it, the next may not be.
        except (OSError, ValueError):
            self.is_silent = True
            self._discard()

    def _discard(self) -> None:
        """Send what the stream still buffers to nowhere, or it would raise again at exit."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def _printable(line: str) -> str:
    """Keep what a progress display of another program last wrote, without its control codes."""
    parts = [part for part in line.split("\r") if part]
    return CONTROL.sub("", parts[-1]) if parts else ""
