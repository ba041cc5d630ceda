"""Folders that cannot be written, disks that are full: one sentence, and nothing half-made."""

import sys
from pathlib import Path

import pytest

from tests.e2e.commands import ROOT, Job, Shell, arguments, federation
from tests.event_files import expected, reader_of, shown
from tests.small_disk import fill, small_disk

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("setting", "place"), [("checkpoints_dir", "a_file"), ("tracking.runs_dir", "/proc/nowhere")]
)
def test_a_place_that_cannot_hold_a_folder_is_one_sentence(
    shell: Shell, corpus: Path, setting: str, place: str
) -> None:
    (shell.folder / "a_file").write_text("precious")
    settings = federation(corpus, site_ids=[0], **{setting: place})
    error = shell.train(*arguments(settings)).end(expect=1).error
    assert place in error
    assert (shell.folder / "a_file").read_text() == "precious"


@pytest.mark.slow
def test_a_disk_of_the_runs_that_is_full_costs_no_round_and_is_made_up_for(
    shell: Shell, corpus: Path
) -> None:
    with small_disk(shell.folder / "disk", 8 << 20) as disk:
        settings = federation(corpus, site_ids=[0], num_rounds=40, checkpoints_dir="checkpoints")
        settings |= {"tracking.runs_dir": disk / "runs", "save_every": 10}
        settings |= {"tracking.tensorboard": True}
        command = shell.train(*arguments(settings))
        job = Job(shell.folder / "checkpoints", disk / "runs" / "1")
        command.wait_until(lambda: job.last_round >= 1, "round 1")
        filling = fill(disk)
        command.end(expect=1)
        assert command.out.count("warning: could not write ") == 1
        assert "completed, 40 of 40 rounds" in command.out
        assert "not recorded" in command.out
        assert f"the record in {job.run} lacks the newest " in command.error
        assert job.status == "COMPLETED"
        assert len(job.curves.get("train.loss", ([], []))[0]) < 40
        filling.unlink()
        sync = [sys.executable, str(ROOT / "scripts" / "sync_runs.py"), "--runs-dir"]
        done = shell.type(*sync, str(disk / "runs")).end(expect=0)
        assert done.out == "run 1: completed from the journal of its job\n"
        assert job.curves["train.loss"][0] == list(range(1, 41))
        assert shown(reader_of(job.run)) == expected(job.read("metrics.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "tracking.runs_dir",
        "checkpoints_dir",
        pytest.param("data.cache_dir", marks=pytest.mark.nightly),
    ],
)
def test_a_disk_that_is_full_at_the_start_is_one_sentence(
    shell: Shell, corpus: Path, place: str
) -> None:
    with small_disk(shell.folder / "disk", 1 << 20) as disk:
        fill(disk)
        settings = federation(corpus, site_ids=[0], num_rounds=1, **{place: disk / "folder"})
        command = shell.train(*arguments(settings)).end(expect=1)
        assert str(disk) in command.error
        assert "space" in command.error
        assert "free space there" in command.error
        left = [path for path in disk.rglob("*") if path.is_file() and path.stat().st_size]
        assert left == [disk / "filling"]


@pytest.mark.slow
@pytest.mark.nightly
def test_a_disk_of_the_checkpoints_that_is_full_ends_the_run_and_says_how_to_go_on(
    shell: Shell, corpus: Path
) -> None:
    with small_disk(shell.folder / "disk", 8 << 20) as disk:
        settings = federation(corpus, site_ids=[0], num_rounds=40)
        settings |= {"checkpoints_dir": disk / "job", "tracking.runs_dir": disk / "runs"}
        command = shell.train(*arguments(settings))
        job = Job(disk / "job", disk / "runs" / "1")
        command.wait_until(lambda: job.last_round >= 1, "round 1")
        filling = fill(disk)
        command.end(expect=1)
        assert "no space is left; free space there or choose another folder" in command.error
        assert job.status == "FAILED"
        assert "To resume:" in command.out
        filling.unlink()
        shell.train(*arguments(settings | {"num_rounds": 3})).end(expect=0)
        assert job.status == "COMPLETED"
