"""Every command ends in one way: a sentence on standard error, and a code of one table."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scaling_fl.commands.endings import Misused, end
from scaling_fl.config import ConfigurationError, Problem
from scaling_fl.core.errors import Interrupted, UserError
from scaling_fl.learning.text.labelled import DataError
from scaling_fl.runtime.machines.launch import WorkerFailed, WorkerRefused
from scaling_fl.runtime.tracking.mongo_settings import SettingsError
from scaling_fl.submission.clients import ClientFailed

PROBLEMS = [Problem("a.b", "must be 1", "2", "give 1"), Problem("c", "must be 3", "4", "give 3")]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("x must be 1, got 2; give 1."), 1, "Error: x must be 1, got 2; give 1.\n"),
        (DataError("a.csv must have rows"), 2, "Error: a.csv must have rows.\n"),
        (WorkerRefused("a.csv must have rows"), 2, "Error: a.csv must have rows.\n"),
        (WorkerFailed("it is away"), 1, "Error: it is away.\n"),
        (SettingsError("it is away"), 1, "Error: it is away.\n"),
        (Misused("--out must be new"), 2, "Error: --out must be new.\n"),
        (
            ConfigurationError(PROBLEMS),
            2,
            "Error: 2 problems in the configuration:\n"
            "a.b must be 1, got 2; give 1.\nc must be 3, got 4; give 3.\n",
        ),
        (ClientFailed("kubectl ended with exit code 7.", 7), 7, "Error: kubectl ended with"),
        (Interrupted(signal.SIGTERM), 143, ""),
        (Interrupted(signal.SIGHUP), 143, ""),
        (Interrupted(signal.SIGQUIT), 143, ""),
        (Interrupted(signal.SIGINT), 130, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_each_kind_of_end_has_its_code_and_its_words(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, text: str
) -> None:
    assert end(lambda: raises(error)) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(text)
    assert said.err or not text


def test_what_is_done_ends_with_0() -> None:
    assert end(lambda: None) == 0


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        end(lambda: 1 / 0)


def test_the_environment_is_read_first_and_its_errors_end_the_command_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SACRED_MONGO_URI", "sm://mongo")
    assert end(lambda: pytest.fail("the command began")) == 1
    assert capsys.readouterr().err.startswith("Error: SACRED_MONGO_URI must be sm://projects/")
    assert end(lambda: None, with_environment=False) == 0


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """As of ``scripts/plan.py with demo | head -1``."""
    code = "from scaling_fl.commands.endings import show; [show('x' * 9999) for _ in range(99)]"
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdout
    assert writer.stderr
    writer.stdout.read(10)
    writer.stdout.close()
    assert (writer.wait(60), writer.stderr.read()) == (0, b"")
    writer.stderr.close()
