"""The metrics of a run as files of events, which TensorBoard reads.

All that the files hold follows from the journal's record: whatever was cut off or taken back, the
next start finds what is missing, and TensorBoard shows one point for each round.
"""

import io
import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from scaling_fl.core.errors import InputError
from scaling_fl.core.json_text import number
from scaling_fl.runtime.record.journal import Series
from scaling_fl.runtime.tracking.run_files import replace_file

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

EVENT_FOLDER = "tensorboard"
"""The folder of the event files, inside that of their run."""
_NAME = "events.out.tfevents.{:06d}"  # TensorBoard reads files by name, the newest last
_WRITER = "tensorboard.summary.writer.record_writer"


def is_tensorboard_installed() -> bool:
    return find_spec("tensorboard") is not None


def prepare_events() -> None:
    """Begin to import what writes events: it takes half a second, beside what a run does first.

    Raises:
        InputError: it is not installed.
    """
    if not is_tensorboard_installed():
        raise InputError(
            "tracking.tensorboard=True needs the package tensorboard, which is not installed; run "
            "`pip install -c constraints.txt -e '.[tensorboard]'` in the folder of the project."
        )
    threading.Thread(target=import_module, args=(_WRITER,), daemon=True).start()


class EventFiles:
    """Keeps the event files of a run, of which only the newest has content, up to its metrics."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._last_step = 0
        self._written: dict[str, tuple[int, str]] = {}

    def write(self, run_dir: Path, metrics: Mapping[str, Series]) -> None:
        """Add the points that are missing; where others have changed, start a new file.

        Raises:
            OSError: the disk is full or refuses; the next call writes what is missing.
        """
        path, self._path = self._path, None  # after an error nobody knows what the file holds
        if not metrics:
            return
        if path and _written_to(metrics, self._last_step) == self._written:
            with path.open("ab") as file:
                file.write(_encoded(_points(metrics, after=self._last_step)))
        else:
            path = _written_anew(run_dir / EVENT_FOLDER, _content(metrics))
        self._path = path
        self._last_step = max(series["steps"][-1] for series in metrics.values())
        self._written = _written_to(metrics, self._last_step)

    @staticmethod
    def are_current(run_dir: Path, metrics: Mapping[str, Series]) -> bool:
        """Tell whether TensorBoard would show exactly these metrics."""
        found = b"".join(path.read_bytes() for path in _files(run_dir / EVENT_FOLDER))
        return found == (_content(metrics) if metrics else b"")


def _written_anew(folder: Path, content: bytes) -> Path:
    """Make the newest file hold exactly this content, and the others nothing."""
    folder.mkdir(exist_ok=True)
    files = _files(folder)
    newest = files[-1] if files else folder / _NAME.format(1)
    found = newest.read_bytes() if files else b""
    if content.startswith(found):  # a record that was cut off begins as the whole one
        with newest.open("ab") as file:
            file.write(content[len(found) :])
    else:
        newest = folder / _NAME.format(1 + len(files))
        replace_file(newest, content)
    for path in files:
        if path != newest:  # Not deleted: a TensorBoard that reads it would wait for it for ever.
            os.truncate(path, 0)
    return newest


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def _written_to(metrics: Mapping[str, Series], step: int) -> dict[str, tuple[int, str]]:
    """Tell how many points each series has up to a round, and when the last one was taken.

    A round that is computed again has another time, also where its values are the same.
    """
    counts = {name: bisect_right(series["steps"], step) for name, series in metrics.items()}
    return {n: (count, metrics[n]["timestamps"][count - 1]) for n, count in counts.items() if count}


def _content(metrics: Mapping[str, Series]) -> bytes:
    return _encoded([*_head(metrics), *_points(metrics, after=-1)])


def _head(metrics: Mapping[str, Series]) -> "Iterator[Event]":
    """Yield what each file begins with: its version, and that what was read before is void."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    began = min(_seconds(series["timestamps"][0]) for series in metrics.values())
    yield Event(wall_time=began, file_version="brain.Event:2")
    yield Event(wall_time=began, step=0, session_log=SessionLog(status=SessionLog.START))


def _points(metrics: Mapping[str, Series], *, after: int) -> "Iterator[Event]":
    """Yield the points after a round, in the order of rounds."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    for step, name, value, time in sorted(_rows(metrics, after)):
        # A slash is what TensorBoard groups curves by.
        point = Summary.Value(tag=name.replace(".", "/", 1), simple_value=number(value))
        yield Event(wall_time=_seconds(time), step=step, summary=Summary(value=[point]))


def _rows(metrics: Mapping[str, Series], after: int) -> Iterator[tuple[int, str, float, str]]:
    for name, series in metrics.items():
        begin = bisect_right(series["steps"], after)
        values, times = series["values"][begin:], series["timestamps"][begin:]
        for step, value, time in zip(series["steps"][begin:], values, times, strict=True):
            yield step, name, value, time


def _encoded(events: "Iterable[Event]") -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString(deterministic=True))
    return file.getvalue()


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp() if time else 0.0
