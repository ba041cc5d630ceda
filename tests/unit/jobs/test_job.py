"""What several starts of a job share: its name, its record, its claim, wherever it is kept."""

import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.config import Config, read_config
from scaling_fl.core.errors import UserError
from scaling_fl.jobs.job import open_job
from scaling_fl.runtime.record.journal import JOURNAL
from scaling_fl.runtime.storage import StorageError, open_storage
from scaling_fl.runtime.tracking.runs import from_here


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def remote() -> str:
    return f"memory://{uuid.uuid4().hex}/job"


def make_config(**changes: Any) -> Config:
    return read_config({"task_name": "20newsgroups", "model": "tiny", **changes})


def start_and_end(**changes: Any) -> tuple[str, str, bool]:
    """Open a job, begin and end it as a run does; return its name, uid and whether it was new."""
    job = open_job(make_config(**changes))
    job.begin("1")
    job.end("COMPLETED")
    job.claim.release()
    return job.name, job.uid, job.is_new


def upload_journal(url: str, data: bytes) -> None:
    open_storage(url).write_bytes(JOURNAL, data)


def test_a_job_without_a_name_is_called_after_its_task_and_the_time() -> None:
    name, _, is_new = start_and_end()
    assert name.startswith("20newsgroups-")
    assert is_new
    assert (Path("checkpoints") / name / JOURNAL).exists()


def test_the_second_start_of_a_job_continues_the_first() -> None:
    first = start_and_end(job_name="job")
    second = start_and_end(job_name="job")
    assert first[:2] == second[:2]
    assert (first[2], second[2]) == (True, False)


def test_a_folder_of_checkpoints_names_its_job() -> None:
    first = start_and_end(job_name="job", checkpoints_dir="here")
    assert start_and_end(checkpoints_dir="here")[:2] == first[:2]


@pytest.mark.parametrize("is_remote", [False, True])
def test_the_folder_of_another_job_is_refused_and_let_go(is_remote: bool, remote: str) -> None:
    place = remote if is_remote else "here"
    start_and_end(job_name="job", checkpoints_dir=place)
    with pytest.raises(UserError, match="belongs to job_name=job, got job_name=other; use"):
        open_job(make_config(job_name="other", checkpoints_dir=place))
    # Neither is the claim kept, nor does the other job inherit anything.
    assert start_and_end(job_name="job", checkpoints_dir=place)[2] is False
    assert start_and_end(job_name="other", checkpoints_dir=f"{place}-2")[2] is True


def test_a_claim_is_let_go_when_the_journal_cannot_be_made(remote: str) -> None:
    Path("runs").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="runs"):
        open_job(make_config(job_name="job", checkpoints_dir=remote))
    Path("runs").unlink()
    assert open_storage(remote).names() == []
    assert start_and_end(job_name="job", checkpoints_dir=remote)[2] is True


def test_one_name_in_two_object_stores_is_two_jobs(remote: str) -> None:
    first = start_and_end(job_name="job", checkpoints_dir=f"{remote}/a")
    second = start_and_end(job_name="job", checkpoints_dir=f"{remote}/b")
    assert first[1] != second[1]
    assert second[2]


def test_the_journal_comes_back_from_the_store(remote: str) -> None:
    job = open_job(make_config(job_name="job", checkpoints_dir=remote))
    job.begin("7")
    upload_journal(remote, job.journal.path.read_bytes())
    job.end("COMPLETED")
    job.claim.release()
    job.journal.path.unlink()
    again = open_job(make_config(checkpoints_dir=remote))
    assert (again.name, again.uid, again.record.run_id) == ("job", job.uid, "7")
    again.claim.release()


def test_what_was_journaled_after_the_last_upload_is_kept(remote: str) -> None:
    job = open_job(make_config(job_name="job", checkpoints_dir=remote))
    job.begin("7")
    upload_journal(remote, job.journal.path.read_bytes())
    job.end("COMPLETED")
    job.claim.release()
    longer = job.journal.path.read_bytes()
    again = open_job(make_config(job_name="job", checkpoints_dir=remote))
    assert again.journal.path.read_bytes() == longer
    again.claim.release()


def test_a_job_that_went_on_elsewhere_is_continued_from_there(remote: str) -> None:
    """Even when this machine's journal of the abandoned rounds is the longer one."""
    job = open_job(make_config(job_name="job", checkpoints_dir=remote))
    job.begin("7")
    common = job.journal.path.read_bytes()
    job.journal.append("note", level="info", text="abandoned " * 100)
    job.end("FAILED")
    job.claim.release()
    elsewhere = common + b'{"time": "t", "event": "resume", "round": 0}\n'
    upload_journal(remote, elsewhere)
    again = open_job(make_config(job_name="job", checkpoints_dir=remote))
    assert again.journal.path.read_bytes() == elsewhere
    again.claim.release()


def test_a_path_below_the_current_folder_is_shown_relative_to_it(tmp_path: Path) -> None:
    assert from_here(str(tmp_path / "checkpoints" / "job")) == "checkpoints/job"
    assert from_here("/elsewhere/job") == "/elsewhere/job"
    assert from_here("gs://bucket/job") == "gs://bucket/job"


def test_in_a_container_checkpoints_must_be_on_a_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALING_FL_CONTAINER", "1")
    here = Path.cwd()  # of this machine's root, as far as it is not mounted
    if here.stat().st_dev != Path("/").stat().st_dev:
        assert start_and_end(job_name="job", checkpoints_dir="kept")[0] == "job"
        return
    with pytest.raises(StorageError, match="checkpoints_dir must outlive the container") as error:
        open_job(make_config(job_name="job", checkpoints_dir="lost"))
    assert f"docker run -v /a/folder:{here / 'lost'}" in str(error.value)
    assert not (here / "lost").exists()


def test_in_a_container_a_bucket_needs_no_mount(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALING_FL_CONTAINER", "1")
    assert start_and_end(job_name="job", checkpoints_dir=remote)[0] == "job"


@pytest.mark.parametrize("place", ["a_file", "a_file/below", "/proc/nowhere"])
def test_a_place_that_cannot_hold_a_folder_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "a_file").write_text("precious")
    with pytest.raises(UserError, match=re.escape(place)):
        open_job(make_config(checkpoints_dir=place))
    assert (tmp_path / "a_file").read_text() == "precious"
