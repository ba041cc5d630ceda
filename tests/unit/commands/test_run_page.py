"""Every run leaves its own page, and never pays for it."""

import time
from pathlib import Path

import pytest

from scaling_fl.commands.charting import bundle, page_script, start_bundling
from scaling_fl.commands.run_page import leave_page
from scaling_fl.runtime.tracking.sources import open_run
from tests.made_up_runs import of, write


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write([of(1, 100), of(2, 100)], tmp_path)


def test_pages_are_small_and_share_one_script() -> None:
    bundle()
    script = page_script()
    for number in (1, 2):
        leave_page(open_run(f"runs/{number}"))
        page = Path(f"runs/{number}/report.html").read_text()
        assert f"Run runs/{number} (made-up-{number})" in page
        assert f'src="../{script.name}"' in page
        assert len(page) < 100_000
    assert sorted(path.name for path in Path("runs").iterdir()) == ["1", "2", script.name]
    assert Path("runs", script.name).read_text() == script.text


def test_a_run_does_not_wait_for_the_charting_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALING_FL_CACHE", str(tmp_path / "cache"))
    leave_page(open_run("runs/1"))
    assert "The charts need ../page-" in Path("runs/1/report.html").read_text()
    assert sorted(path.name for path in Path("runs").iterdir()) == ["1", "2"]
    end = start_bundling()
    end()
    assert page_script().library is None


@pytest.mark.slow
def test_the_library_is_made_once_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALING_FL_CACHE", str(tmp_path / "cache"))
    end = start_bundling()
    while page_script().library is None:
        time.sleep(0.1)
    end()
    assert "vegaEmbed" in str(page_script().library)
    before = sorted(tmp_path.rglob("*"))
    start_bundling()()
    bundle()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_page_that_cannot_be_written_is_told_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("runs/1/report.html").mkdir()
    leave_page(open_run("runs/1"))
    told = capsys.readouterr().err
    assert told.startswith("warning: report.html of the run could not be written (IsADirectoryErr")
    assert "the run is complete, and `scripts/report.py runs/1` shows it." in told


def test_a_run_without_a_folder_has_no_page(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    Path("runs/1/info.json").unlink()
    run = open_run("checkpoints/made-up-1")
    assert run.folder is None
    leave_page(run)
    assert len(sorted(tmp_path.rglob("*"))) == len(before) - 1
