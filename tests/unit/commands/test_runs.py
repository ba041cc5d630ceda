"""Listing runs: which are found, what each has come to, and which conditions it meets."""

import json
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.commands.run_query import row_of
from scaling_fl.commands.runs import ListOptions, main
from scaling_fl.runtime.record.journal import Journal
from scaling_fl.runtime.storage import open_storage
from scaling_fl.runtime.storage.claim import Claim
from scaling_fl.runtime.tracking.sources import open_run
from tests.past_jobs import copy_past_jobs


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SACRED_MONGO_URI", "SACRED_USER", "SACRED_PASSWORD", "SACRED_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def listed(capsys: pytest.CaptureFixture[str]) -> Any:
    """List runs as JSON."""

    def run_command(*places: str, **options: Any) -> list[dict[str, Any]]:
        assert main(ListOptions(places=places or ["runs"], form="json", **options)) == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return found

    return run_command


def start_a_job(folder: str) -> None:
    with Journal(f"{folder}/journal.jsonl") as journal:
        journal.append("start", job_name=folder, uid="u", host="pc", pid=9)
        journal.append("resume", round=0, num_rounds=4)
        metrics = {"validation.loss": 1.0, "bytes.total": 100.0, "time.round_seconds": 2.0}
        journal.append("round", round=1, metrics=metrics, digest="d")


def test_what_is_listed_is_what_the_reader_of_runs_reads(tmp_path: Path, listed: Any) -> None:
    copy_past_jobs(tmp_path)
    rows = listed()
    assert [row["run"] for row in rows] == ["runs/1", "runs/2"]
    assert [row["job"] for row in rows] == ["feedback", "flasc"]
    for row in rows:
        run = open_run(row["run"])
        metrics = run.record.metrics
        assert row["metrics"] == {name: each["values"][-1] for name, each in metrics.items()}
        assert row["bytes"] == sum(
            value
            for name in ("bytes.download", "bytes.upload")
            for value in metrics[name]["values"]
        )
        assert row["seconds"] == sum(metrics["time.round_seconds"]["values"])
        assert (row["status"], row["rounds"], row["num_rounds"]) == ("COMPLETED", 2, 2)


def test_a_run_without_a_process_is_dead_and_a_claimed_one_runs(listed: Any) -> None:
    start_a_job("job")
    (row,) = listed("job")
    assert (row["status"], row["rounds"], row["num_rounds"]) == ("DEAD", 1, 4)
    claim = Claim.acquire(open_storage("job"))
    assert [row["status"] for row in listed("job")] == ["RUNNING"]
    claim.release()
    assert listed("job", status="running") == []
    assert len(listed("job", status="dead")) == 1


def test_a_folder_that_lags_behind_its_journal_is_not_believed(tmp_path: Path, listed: Any) -> None:
    copy_past_jobs(tmp_path)
    metrics = tmp_path / "runs" / "2" / "metrics.json"
    before = listed("runs/2")
    series = json.loads(metrics.read_text())
    cut = {name: {key: v[:1] for key, v in each.items()} for name, each in series.items()}
    metrics.write_text(json.dumps(cut))
    # That job's journal has only the time of its line, which is a moment after the start.
    for row in before + (after := listed("runs/2")):
        del row["started"]
    assert after == before


@pytest.mark.parametrize(
    ("conditions", "jobs"),
    [
        (["job=f*"], ["feedback", "flasc"]),
        (["upload.density<0.5", "task=*"], ["flasc"]),
        (["upload.density!=0.5"], ["flasc"]),
        (["adapter.kind=LORA", "rounds>=2"], ["feedback", "flasc"]),
        (["bytes<1"], []),
        (["upload.error_feedback=True"], ["feedback"]),
        (["message=None"], ["feedback", "flasc"]),
    ],
)
def test_runs_are_found_by_columns_metrics_and_settings(
    tmp_path: Path, listed: Any, conditions: list[str], jobs: list[str]
) -> None:
    copy_past_jobs(tmp_path)
    assert [row["job"] for row in listed(where=conditions)] == jobs


def test_runs_are_sorted_with_those_that_lack_the_value_last(tmp_path: Path, listed: Any) -> None:
    copy_past_jobs(tmp_path)
    start_a_job("job")
    places = ["job", "runs"]
    assert listed(*places, sort="bytes")[0]["job"] == "job"
    for down in (False, True):
        rows = listed(*places, sort="upload.density", is_descending=down)
        assert [row["job"] for row in rows][-1] == "job"
        densities = [row["settings"]["upload.density"] for row in rows[:-1]]
        assert densities == sorted(densities, reverse=down)


def test_misuse_says_what_may_be_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy_past_jobs(tmp_path)
    for options, part in (
        ({"where": ["upload.densty=1"]}, "use upload.density"),
        ({"where": ["density"]}, "--where must be name=value"),
        ({"where": ["rounds>many"]}, "must compare with a number, got 'many'"),
        ({"sort": "accuracyy"}, "no run has a column, metric or setting accuracyy"),
        ({"metric": "nothing"}, "no run has a column, metric or setting nothing"),
    ):
        assert main(ListOptions(places=["runs"], **options)) == 2  # type: ignore[arg-type]
        assert part in capsys.readouterr().err
    assert main(ListOptions(places=["nowhere"])) == 1
    assert "PLACE must be a folder that exists" in capsys.readouterr().err


def test_what_cannot_be_read_is_told_and_the_rest_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_past_jobs(tmp_path)
    other = tmp_path / "runs" / "3"
    other.mkdir()
    (other / "run.json").write_text("{}")
    assert main(ListOptions(places=["runs"])) == 0
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()] == ["run", "runs/1", "runs/2"]
    assert "warning: runs/3 is left out: runs/3 is not the record of a run" in printed.err
    (tmp_path / "empty").mkdir()
    assert main(ListOptions(places=["empty"])) == 0
    assert "No run is in empty." in capsys.readouterr().err


def test_a_row_of_a_run_that_has_done_nothing_says_nothing() -> None:
    with Journal("job/journal.jsonl") as journal:
        journal.append("start", job_name="job", uid="u")
    row = row_of(open_run("job"))
    assert (row.rounds, row.num_rounds, row.bytes, row.seconds) == (0, 0, None, None)
