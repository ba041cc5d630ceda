"""A cached folder appears whole or not at all, and is built by one process."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from scaling_fl.core.errors import UserError
from scaling_fl.learning.cache import CACHE_VARIABLE, cache_folder, cached_folder


def is_whole(folder: Path) -> bool:
    return (folder / "done").is_file()


def slow_build(staging: Path) -> None:
    with (staging.parent.parent / "builds.log").open("a") as log:
        log.write("built\n")
    time.sleep(0.1)
    (staging / "done").write_text("yes")


def use(folder: Path) -> None:
    assert is_whole(cached_folder(folder, is_whole=is_whole, build=slow_build))


def test_many_processes_build_once(tmp_path):
    fork = multiprocessing.get_context("fork")
    users = [fork.Process(target=use, args=(tmp_path / "thing",)) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert [user.exitcode for user in users] == [0] * 4
    assert (tmp_path / "builds.log").read_text() == "built\n"


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def fail(staging: Path) -> None:
        (staging / "done").write_text("half")
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        cached_folder(tmp_path / "thing", is_whole=is_whole, build=fail)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thing.lock"]


def test_leftovers_of_a_killed_build_are_swept(tmp_path):
    leftover = tmp_path / ".thing.abc" / "content"
    leftover.mkdir(parents=True)
    (leftover / "done").write_text("half")
    use(tmp_path / "thing")
    assert not leftover.exists()


def test_a_damaged_folder_is_built_anew(tmp_path):
    use(tmp_path / "thing")
    (tmp_path / "thing" / "done").rename(tmp_path / "thing" / "junk")
    use(tmp_path / "thing")
    assert [entry.name for entry in (tmp_path / "thing").iterdir()] == ["done"]


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"must be writable, and is not .*; free space there"):
        cached_folder(tmp_path / "file" / "thing", is_whole=is_whole, build=slow_build)


def test_the_cache_is_the_one_given_then_the_environments(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_folder("/elsewhere") == Path("/elsewhere")
    assert cache_folder() == tmp_path
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_folder() == Path(os.path.expanduser("~/.cache/scaling_fl"))
