import errno
import json
import math
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.record.journal import Journal, JournalError, JournalTail, fold

WRITER = """
import sys
from scaling_fl.runtime.record.journal import Journal
journal = Journal(sys.argv[1])
for number in range(10**9):
    journal.append("round", round=number, text="x" * (number * 7919 % 200_000))
"""


def read(path: Path) -> list[dict[str, Any]]:
    return JournalTail(path).read_new()


def round_event(number: int, **fields: Any) -> dict[str, Any]:
    row = {"round": number, "client": 0, "loss": float(number)}
    event = {"event": "round", "time": f"t{number}", "round": number, "clients": [row]}
    return event | {"metrics": {"train.loss": float(number)}, "digest": f"d{number}"} | fields


def test_lines_are_whole_or_absent_after_a_kill_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    seen = 0
    for _ in range(12):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as writer:
            while not path.exists() or path.stat().st_size == seen:
                time.sleep(0.002)
            time.sleep(random.random() * 0.1)
            writer.kill()
        with Journal(path) as journal:
            journal.append("note", level="info", text="reopened")
        events = [json.loads(line) for line in path.read_bytes().splitlines()]
        seen = path.stat().st_size
        assert events[-1]["text"] == "reopened"
        for event in events:
            if event["event"] == "round":
                assert event["text"] == "x" * (event["round"] * 7919 % 200_000)


@pytest.mark.parametrize(
    "tail", [b'{"event": "rou', b"\xff\xfe\x00", b'{"event": "end"}', b"\0" * 9]
)
@pytest.mark.parametrize("whole", [b"", b'{"event": "start", "uid": "u"}\n'])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, whole: bytes, tail: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(whole + tail * 20_000)
    Journal(path).close()
    assert path.read_bytes() == whole


def test_a_line_torn_by_another_writer_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append("start", uid="u")
        with path.open("ab") as other:
            other.write(b'{"event": "round", "ro')
        journal.append("end", status="FAILED")
    assert [event["event"] for event in read(path)] == ["start", "end"]


def test_two_processes_append_without_mixing_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    code = WRITER.replace("10**9", "60")
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(2)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert sorted(event["round"] for event in read(path)) == sorted([*range(60), *range(60)])


def test_a_full_disk_leaves_the_lines_before_and_none_of_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    code = (
        "import resource, sys\nfrom scaling_fl.runtime.record.journal import *\n"
        "journal = Journal(sys.argv[1]); journal.append('start', uid='u')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    journal.append('note', text='x' * 5000)\n"
        "except JournalError as error:\n    print(error)\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True
    )
    assert child.stdout.count("\n") == 1
    assert "cannot be written" in child.stdout
    assert [event["event"] for event in read(path)] == ["start"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_journal_that_cannot_be_opened_says_so_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(tmp_path / "file" / "journal.jsonl")


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(FLOATS | st.integers(-(2**60), 2**60) | st.text(), max_size=20))
def test_values_come_back_exactly(tmp_path_factory: Any, values: list[Any]) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    with Journal(path) as journal:
        journal.append("values", values=values)
    (event,) = read(path)
    assert [repr(value) for value in event["values"]] == [repr(value) for value in values]


def test_the_tail_reads_whole_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    tail = JournalTail(path)
    assert tail.read_new() == []
    path.write_bytes(b'{"event": "a"}\n{"event": ')
    assert [event["event"] for event in tail.read_new()] == ["a"]
    assert tail.read_new() == []
    with path.open("ab") as file:
        file.write(b'"b"}\n')
    assert [event["event"] for event in tail.read_new()] == ["b"]
    assert tail.read_new() == []


def test_a_line_that_is_no_event_becomes_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"event": "a"}\n\xff\x00\n3\n{"event": "b"}\n')
    assert [event["event"] for event in read(path)] == ["a", "note", "note", "b"]
    assert fold(read(path)).notes[0]["level"] == "warning"


def test_a_resume_drops_the_rounds_after_it_and_a_redone_round_gives_one_point() -> None:
    events = [
        {"event": "start", "uid": "u", "job_name": "j", "run_id": "1"},
        *[round_event(number) for number in (1, 2, 3)],
        {"event": "checkpoint", "round": 3, "path": "p3", "digest": "d3"},
        {"event": "start", "uid": "u", "job_name": "j", "run_id": "1"},
        {"event": "resume", "round": 1},
    ]
    record = fold(events)
    assert (record.last_round, record.last_digest, record.checkpoints) == (1, "d1", [])
    record.apply(round_event(2, metrics={"train.loss": 20.0}, digest="e2"))
    assert record.metrics == {
        "train.loss": {"steps": [1, 2], "values": [1.0, 20.0], "timestamps": ["t1", "t2"]}
    }
    assert [row["round"] for row in record.clients] == [1, 2]
    assert (record.last_round, record.last_digest, record.attempts) == (2, "e2", 2)


def test_a_fresh_start_drops_every_round() -> None:
    record = fold([round_event(1), {"event": "resume", "round": 0}])
    assert (record.metrics, record.clients, record.last_round) == ({}, [], 0)
    assert record.last_digest is None


@given(st.lists(st.integers(1, 12), max_size=40))
def test_a_metric_has_one_point_per_round_in_order(rounds: list[int]) -> None:
    record = fold(round_event(number, digest=str(i)) for i, number in enumerate(rounds))
    steps = record.metrics["train.loss"]["steps"] if rounds else []
    assert steps == sorted(set(rounds))
    assert sorted(row["round"] for row in record.clients) == steps


def test_events_fold_into_the_record() -> None:
    partition = {"label_names": ["a"], "histograms": [[3]], "entropies": [0.0]}
    record = fold(
        [
            {"event": "start", "uid": "u", "job_name": "j", "run_id": None},
            {"event": "resume", "round": 0},
            {"event": "partition", "time": "t", **partition},
            round_event(1, failures=[{"client": 4, "reason": "not finite"}]),
            {"event": "checkpoint", "time": "t", "round": 1, "path": "p", "digest": "d1"},
            {"event": "note", "time": "t", "level": "info", "text": "hello"},
            {"event": "of a later version", "anything": 1},
            {"event": "end", "status": "DEGRADED", "message": "client 4"},
        ]
    )
    assert record.partition == partition
    assert record.failures == [{"round": 1, "client": 4, "reason": "not finite"}]
    assert record.checkpoints == [{"round": 1, "path": "p", "digest": "d1"}]
    assert record.notes == [{"level": "info", "text": "hello", "time": "t"}]
    assert (record.status, record.message, record.run_id) == ("DEGRADED", "client 4", None)


def test_the_rule_that_ended_a_job_is_that_of_its_last_round_or_of_its_newest_start() -> None:
    start, by = {"event": "start"}, {"stopped_by": "stop_when.bytes=9 (why)"}
    ended = [start, {"event": "resume", "round": 0}, round_event(1), round_event(2) | by]
    again = [*ended, start, {"event": "resume", "round": 2} | by]
    beyond = [*ended, start, {"event": "resume", "round": 2}, round_event(3)]
    redone = [*ended, start, {"event": "resume", "round": 1}, round_event(2)]
    found = [fold(events).stopped_by for events in (ended, again, beyond, redone, [*ended, start])]
    assert found == [by["stopped_by"], by["stopped_by"], None, None, None]


def test_a_metric_that_is_not_finite_survives(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append("round", round=1, metrics={"a": math.nan, "b": -math.inf, "c": 0.1 + 0.2})
    metrics = fold(read(path)).metrics
    assert all(math.isnan(metrics[name]["values"][0]) for name in "ab")
    assert metrics["c"]["values"] == [0.30000000000000004]
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # other programs know no Infinity


def test_a_journal_of_earlier_that_has_an_infinity_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event": "round", "round": 1, "metrics": {"a": NaN, "b": -Infinity}}\n')
    metrics = fold(read(path)).metrics
    assert math.isnan(metrics["a"]["values"][0])
    assert metrics["b"]["values"] == [-math.inf]


def test_threads_share_a_journal(tmp_path: Path) -> None:
    import threading

    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        threads = [
            threading.Thread(target=lambda: [journal.append("a") for _ in range(30)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(read(path)) == 120
    assert os.path.getsize(path) == sum(len(line) + 1 for line in path.read_bytes().splitlines())


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.ESTALE, errno.EIO])
def test_a_file_system_that_goes_away_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """No test can count on mounting something and taking it away, so its errors are played."""

    def gone(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with Journal(tmp_path / "journal.jsonl") as journal:
        monkeypatch.setattr(os, "write", gone)
        with pytest.raises(JournalError, match=r"cannot be written: .*; (mount|check) .*\.$"):
            journal.append("note", text="lost")
        monkeypatch.undo()
        journal.append("note", text="kept")
    assert [event["text"] for event in read(tmp_path / "journal.jsonl")] == ["kept"]


@pytest.mark.parametrize(
    "event",
    [
        {"event": "round"},
        {"event": "round", "round": "2"},
        {"event": "round", "round": -1},
        {"event": "round", "round": True},
        {"event": "round", "round": 2**60},
        {"event": "round", "round": 2, "metrics": [1]},
        {"event": "round", "round": 2, "metrics": {"train.loss": "low"}},
        {"event": "round", "round": 2, "clients": [7]},
        {"event": "round", "round": 2, "failures": [{"reason": "no"}]},
        {"event": "round", "round": 2, "time": 5},
        {"event": "resume", "round": None},
        {"event": "checkpoint", "round": 2},
        {"event": "end"},
        {"event": "note", "text": 3},
        {"event": 3},
    ],
)
def test_an_event_without_what_its_readers_need_is_left_out(
    tmp_path: Path, event: dict[str, Any]
) -> None:
    path = tmp_path / "journal.jsonl"
    whole = {"event": "round", "round": 1, "metrics": {"train.loss": 0.5}, "time": "now"}
    path.write_text("".join(json.dumps(line) + "\n" for line in (whole, event)))
    record = fold(read(path))
    assert record.metrics["train.loss"]["steps"] == [1]
    assert [note["text"] for note in record.notes] == [
        "a line of the journal is not an event and was left out."
    ]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "folder", "loop"])
def test_a_journal_that_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "journal.jsonl"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    with pytest.raises(UserError, match=r"journal\.jsonl (must be a file|cannot be opened)"):
        Journal(path)
    with pytest.raises(UserError, match="must be a file"):
        JournalTail(path).read_new()
