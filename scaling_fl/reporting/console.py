"""What a person sees while a run goes on: live bars on a terminal, plain lines anywhere else."""

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from scaling_fl.reporting.summary import size

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import RenderableType
    from rich.live import Live

MAX_CLIENT_ROWS = 8
REDRAWS_PER_SECOND = 5
BAR_WIDTH = 32
SHOWN_GROUPS = ("train", "validation", "privacy")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class Console:
    """Print lines, and on a terminal keep the state of the round below them.

    ``log`` receives every line, never a redraw. A stream that goes away is not an error: the run
    goes on and ``log`` still has everything. Any thread may print.
    """

    def __init__(
        self, stream: TextIO | None = None, log: Callable[[str], None] | None = None
    ) -> None:
        self._stream = _Stream(sys.stdout if stream is None else stream)
        self._log = log
        self._lock = threading.RLock()
        self._picture = _Picture()
        self._rich: RichConsole | None = None
        self._live: Live | None = None
        self._closed = False
        # A dumb terminal cannot move its cursor: bars would come out as a flood of lines.
        dumb = os.environ.get("TERM", "") in ("dumb", "unknown")
        self._animated = self._stream.isatty() and not dumb

    def line(self, text: str) -> None:
        """Print a line, or several."""
        self._print(text)

    def warn(self, text: str) -> None:
        """Print a line that calls for attention."""
        self._print(f"warning: {text}", style="yellow")

    def stage(self, text: str) -> None:
        """Say what is being done before the first round, such as loading a model."""
        if self._animated and not self._closed:
            self._record(text)
            self._picture.stage = text
            self._animate()
        else:
            self._print(text)

    def client_progress(
        self, round: int, num_rounds: int, client: int, step: int, num_steps: int, loss: float
    ) -> None:
        """Show how far a client is in its round; without a terminal this shows nothing."""
        if self._animated and not self._closed:
            self._picture.client(round, num_rounds, client, step, num_steps, loss)
            self._animate()

    def round_done(
        self,
        round: int,
        num_rounds: int,
        metrics: Mapping[str, float],
        num_clients: int,
        failures: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Print the line of a finished round, and one for each client that was left out."""
        self._picture.finish(round, num_rounds)
        self._print(round_line(round, num_rounds, metrics, num_clients), style="bold")
        for failure in failures:
            reason = failure.get("reason") or "no reason given"
            self.warn(f"round {round}: client {failure['client']} was left out: {reason}")

    def close(self) -> None:
        """Take the bars away; lines can still be printed."""
        with self._lock:
            self._closed = True
            live, self._live = self._live, None
        if live:
            live.stop()

    def _print(self, text: str, *, style: str = "") -> None:
        with self._lock:
            for line in text.rstrip("\n").split("\n"):
                line = _printable(line)
                self._record(line)
                if self._live and self._rich:
                    from rich.text import Text

                    self._rich.print(Text(line, style), soft_wrap=True)
                else:
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


def round_line(round: int, num_rounds: int, metrics: Mapping[str, float], num_clients: int) -> str:
    """Say in one line what a round came to."""
    parts = [f"round {round}/{num_rounds}"]
    for group in SHOWN_GROUPS:
        # A second dot names one class, and a task may have many of them.
        names = [n for n in metrics if n.startswith(f"{group}.") and n.count(".") == 1]
        if names:
            shown = [f"{name.partition('.')[2]} {metrics[name]:.4f}" for name in names]
            parts.append(f"{group} {', '.join(shown)}")
    facts = [f"{num_clients} client{'s' if num_clients != 1 else ''}"]
    if "time.round_seconds" in metrics:
        facts.append(f"{metrics['time.round_seconds']:.1f} s")
    for name, direction in (("bytes.download", "down"), ("bytes.upload", "up")):
        if name in metrics:
            facts.append(f"{size(metrics[name])} {direction}")
    return " | ".join([*parts, ", ".join(facts)])


class _Picture:
    """The state that the bars show.

    The thread that redraws holds the display's own lock, so nothing here may wait for another:
    rows are replaced as a whole and read without a lock.
    """

    def __init__(self) -> None:
        self.stage = ""
        self._round = self._num_rounds = self._done = self._first = 0
        self._clients_done: frozenset[int] = frozenset()
        self._rows: dict[int, tuple[int, int, float]] = {}
        self._began = time.monotonic()

    def client(
        self, round: int, num_rounds: int, client: int, step: int, num_steps: int, loss: float
    ) -> None:
        if round != self._round:
            self._begin(round, num_rounds)
        rows = {key: row for key, row in self._rows.items() if key != client}
        if step < num_steps:
            rows[client] = (step, num_steps, loss)
        else:
            self._clients_done = self._clients_done | {client}
        self._rows = rows

    def finish(self, round: int, num_rounds: int) -> None:
        if round != self._round:
            self._begin(round, num_rounds)
        self._done, self._rows = round, {}

    def _begin(self, round: int, num_rounds: int) -> None:
        if not self._round:
            # A resumed run starts in the middle; its pace is that of its own rounds.
            self._began, self._first, self._done = time.monotonic(), round - 1, round - 1
        self._round, self._num_rounds, self.stage = round, num_rounds, ""
        self._clients_done, self._rows = frozenset(), {}

    def render(self) -> "RenderableType":
        from rich.spinner import Spinner
        from rich.table import Table

        if self.stage or not self._num_rounds:
            return Spinner("line", self.stage)
        table = Table.grid(padding=(0, 1))
        self._add_bar(table, "rounds", self._done, self._num_rounds, self._pace())
        rows = sorted(list(self._rows.items())[-MAX_CLIENT_ROWS:])
        for client, (step, num_steps, loss) in rows:
            self._add_bar(table, f"  client {client}", step, num_steps, f"loss {loss:.4f}")
        if self._clients_done:
            waits = "" if self._rows else ", merging and evaluating"
            done = len(self._clients_done)
            table.add_row(f"  {done} client{'s'[: done > 1]} done{waits}")
        return table

    def _add_bar(self, table: Any, name: str, done: int, total: int, note: str) -> None:
        from rich.progress_bar import ProgressBar

        bar = ProgressBar(
            total, done, width=BAR_WIDTH, complete_style="cyan", finished_style="green"
        )
        table.add_row(name, bar, f"{done}/{total}", note)

    def _pace(self) -> str:
        seconds, rounds = time.monotonic() - self._began, self._done - self._first
        text = f"{_clock(seconds)} so far"
        if rounds:
            # The time of whole rounds is known only when they end; until then this is a guess.
            left = seconds / rounds * (self._num_rounds - self._done)
            text += f", about {_clock(left)} left"
        return text


class _Stream:
    """A text stream that falls silent, instead of raising, when nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._silent = False
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        # What the terminal cannot show is replaced, not refused.
        shown = text.encode(self.encoding, "replace").decode(self.encoding)
        self._unless_silent(lambda: self._stream.write(shown))
        return len(text)

    def flush(self) -> None:
        self._unless_silent(self._stream.flush)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def _unless_silent(self, action: Callable[[], object]) -> None:
        if self._silent:
            return
        try:
            action()
        except BlockingIOError:
            pass  # A reader that is only slow: this text is lost to it, the next may not be.
        except (OSError, ValueError):
            self._silent = True
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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
