"""What TensorBoard's own reader finds in a run folder."""

import struct
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scaling_fl.core.json_text import number
from scaling_fl.runtime.tracking.event_files import EVENT_FOLDER
from tests.tracked_runs import seconds_of

Curves = dict[str, tuple[list[int], list[float], list[float]]]
"""Steps, values and wall times by tag."""


def reader_of(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / EVENT_FOLDER))


def shown(reader: EventAccumulator) -> Curves:
    """Read what is new, and return all that TensorBoard would show."""
    reader.Reload()
    curves = {tag: reader.Scalars(tag) for tag in reader.Tags()["scalars"]}
    return {
        tag: ([p.step for p in points], [p.value for p in points], [p.wall_time for p in points])
        for tag, points in curves.items()
        if points  # those that were taken back keep their tag until TensorBoard starts again
    }


def expected(metrics: dict[str, Any]) -> Curves:
    """Say what TensorBoard should show of metrics.json: its values are in single precision."""
    return {
        name.replace(".", "/", 1): (
            series["steps"],
            [_single(number(value)) for value in series["values"]],
            [seconds_of(time) for time in series["timestamps"]],
        )
        for name, series in metrics.items()
    }


def _single(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])
