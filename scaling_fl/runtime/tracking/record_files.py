"""The files of a run folder that follow from the journal's record alone."""

from pathlib import Path

from scaling_fl.runtime.record.journal import JobRecord
from scaling_fl.runtime.tracking.event_files import EventFiles
from scaling_fl.runtime.tracking.run_files import metrics_json, replace_file, tables

METRICS = "metrics.json"


class RecordFiles:
    """Writes metrics.json, the tables and, where they are wanted, the files of TensorBoard."""

    def __init__(self, *, has_events: bool) -> None:
        self._tables = tables()
        self._events = EventFiles() if has_events else None

    def write(self, run_dir: Path, record: JobRecord) -> None:
        """Bring all of them up to the record.

        Raises:
            OSError: the disk is full or refuses; the next call writes what is missing.
        """
        replace_file(run_dir / METRICS, metrics_json(record.metrics))
        for name, table in self._tables.items():
            replace_file(run_dir / name, table.render(record.clients))
        if self._events:
            self._events.write(run_dir, record.metrics)

    def are_current(self, run_dir: Path, record: JobRecord) -> bool:
        """Tell whether the folder has all metrics of the record."""
        path = run_dir / METRICS
        if not path.exists() or path.read_bytes() != metrics_json(record.metrics):
            return False
        return self._events is None or self._events.are_current(run_dir, record.metrics)
