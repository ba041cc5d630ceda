"""TensorBoard shows the journal's metrics: one point for each round, whatever was cut off."""

import json
import random
import sys
from pathlib import Path

import pytest

from scaling_fl.core.errors import InputError
from scaling_fl.runtime.record.journal import JobRecord, fold
from scaling_fl.runtime.tracking.event_files import EVENT_FOLDER, EventFiles, prepare_events
from scaling_fl.runtime.tracking.run_folder import RunFolder
from tests.event_files import expected, reader_of, shown
from tests.small_disk import fill, small_disk
from tests.tracked_runs import record_of, round_event, start


def write(run: Path, record: JobRecord) -> None:
    """Write as the next start of a job does."""
    EventFiles().write(run, record.metrics)


def content(run: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((run / EVENT_FOLDER).iterdir())]


def resumed(num_rounds: int, after: int) -> JobRecord:
    """Fold a job of three rounds and a start that went on after an earlier one."""
    rounds = [round_event(n) for n in (1, 2, 3)]
    again = [round_event(n, loss=10.0 + n) for n in range(after + 1, num_rounds + 1)]
    for event in again:
        event["time"] = event["time"].replace("T08", "T09")
    return fold([*rounds, {"event": "resume", "round": after}, *again])


def test_tensorboard_shows_each_metric_at_its_round_with_the_time_of_the_journal(
    tmp_path: Path,
) -> None:
    record = record_of(5)
    write(tmp_path, record)
    curves = shown(reader_of(tmp_path))
    assert curves == expected(record.metrics)
    assert curves["train/loss"][0] == [1, 2, 3, 4, 5]
    assert EventFiles.are_current(tmp_path, record.metrics)
    assert not EventFiles.are_current(tmp_path, record_of(6).metrics)


def test_files_that_grow_with_the_run_are_those_written_at_once(tmp_path: Path) -> None:
    growing, at_once = tmp_path / "growing", tmp_path / "at_once"
    growing.mkdir()
    at_once.mkdir()
    files = EventFiles()
    for num_rounds in (0, 1, 1, 2, 5):
        files.write(growing, record_of(num_rounds).metrics)
    write(at_once, record_of(5))
    assert content(growing) == content(at_once)


def test_a_file_that_was_cut_off_anywhere_is_made_whole(tmp_path: Path) -> None:
    write(tmp_path, record_of(4))
    [whole] = content(tmp_path)
    [path] = (tmp_path / EVENT_FOLDER).iterdir()
    for size in [0, 1, len(whole), *random.Random(0).sample(range(len(whole)), 30)]:
        path.write_bytes(whole[:size])
        write(tmp_path, record_of(6))
        assert shown(reader_of(tmp_path)) == expected(record_of(6).metrics), size
        assert len(content(tmp_path)) == 1


@pytest.mark.parametrize("after", [0, 1, 2])
def test_rounds_that_are_taken_back_are_gone_also_for_a_tensorboard_that_is_open(
    tmp_path: Path, after: int
) -> None:
    write(tmp_path, record_of(3))
    is_open = reader_of(tmp_path)
    assert shown(is_open) == expected(record_of(3).metrics)
    files = EventFiles()
    for num_rounds in range(max(1, after), 7):
        record = resumed(num_rounds, after)
        files.write(tmp_path, record.metrics)
        for reader in (is_open, reader_of(tmp_path)):
            assert shown(reader) == expected(record.metrics)
        assert EventFiles.are_current(tmp_path, record.metrics)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_rounds_that_were_computed_again_before_the_next_look_are_the_new_ones(
    tmp_path: Path, after: int
) -> None:
    files, is_open = EventFiles(), reader_of(tmp_path)
    files.write(tmp_path, record_of(3).metrics)
    assert shown(is_open) == expected(record_of(3).metrics)
    record = resumed(5, after)  # as many rounds as before were computed again, and more
    files.write(tmp_path, record.metrics)
    for reader in (is_open, reader_of(tmp_path)):
        assert shown(reader) == expected(record.metrics)


def test_a_round_that_comes_late_takes_its_place(tmp_path: Path) -> None:
    files = EventFiles()
    events = [round_event(n) for n in (1, 3)]
    files.write(tmp_path, fold(events).metrics)
    record = fold([*events, round_event(2)])
    files.write(tmp_path, record.metrics)
    assert shown(reader_of(tmp_path)) == expected(record.metrics)


def test_a_disk_that_is_full_for_a_while_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        files = EventFiles()
        files.write(disk, record_of(3).metrics)
        size = len(content(disk)[0])
        filling = fill(disk)
        for num_rounds in (400, 500):
            with pytest.raises(OSError, match="space"):
                files.write(disk, record_of(num_rounds).metrics)
        assert len(content(disk)[0]) > size  # a part was written
        filling.unlink()
        for num_rounds in (501, 502):
            files.write(disk, record_of(num_rounds).metrics)
            assert shown(reader_of(disk)) == expected(record_of(num_rounds).metrics)


def test_a_record_is_completed_with_its_event_files(tmp_path: Path) -> None:
    folder = start(RunFolder(tmp_path / "runs", uid="uid-1", job_name="job", has_events=True))
    folder.refresh(record_of(3))
    for path in (folder.path / EVENT_FOLDER).iterdir():
        path.unlink()
    later = RunFolder(
        tmp_path / "runs", run_id=folder.run_id, uid="uid-1", job_name="job", has_events=True
    )
    assert later.complete(record_of(3))
    assert not later.complete(record_of(3))
    metrics = json.loads((folder.path / "metrics.json").read_text())
    assert shown(reader_of(folder.path)) == expected(metrics)


def test_a_machine_without_the_library_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # so that it cannot be imported
    with pytest.raises(InputError, match=r"tracking\.tensorboard=True .* `pip install .*`"):
        prepare_events()
