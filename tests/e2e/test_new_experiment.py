"""The command that writes a project, as a person answers its questions in a terminal."""

import sys
import time

import pytest

from tests.e2e.commands import ROOT, Shell
from tests.e2e.terminals import Terminal

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NEW = [sys.executable, str(ROOT / "scripts" / "new_experiment.py"), "sums"]


def asked(shell: Shell, *argv: str) -> Terminal:
    return Terminal([*NEW, *argv], shell.folder, shell.environ | {"TERM": "xterm"})


def wait_for(terminal: Terminal, question: str) -> None:
    for _ in range(300):
        if question in terminal.text:
            return
        time.sleep(0.1)
    raise AssertionError(terminal.text)


def test_what_is_not_given_is_asked_and_a_wrong_answer_asked_again(shell: Shell) -> None:
    terminal = asked(shell, "--data", "base_model=tiny")
    wait_for(terminal, "Task of instruction tuning")
    terminal.press("\x15generalnlp\r")  # Ctrl-U takes the default away
    wait_for(terminal, "File of the training rows")
    for _ in range(5):
        terminal.press("\r")
        time.sleep(0.5)
    wait_for(terminal, "Compute in bf16")
    terminal.press("n")
    wait_for(terminal, "Rank of the adapter")
    terminal.press("\x150\r")
    wait_for(terminal, "must be at least 1, got 0")
    terminal.press("\x7f3\r")
    while terminal.process.poll() is None:
        terminal.press("\r")
        time.sleep(0.3)
    terminal.end(expect=0)
    written = (shell.folder / "sums" / "config.yaml").read_text()
    assert "task_name: generalnlp\n" in written
    assert 'model: "tiny"\n' in written
    assert "precision: fp32\n" in written
    assert "  rank: 3\n" in written


def test_ctrl_c_ends_the_questions_and_leaves_nothing(shell: Shell) -> None:
    terminal = asked(shell)
    wait_for(terminal, "Task of instruction tuning")
    before = {*shell.folder.iterdir()}
    terminal.press("\x03")
    terminal.end(expect=130)
    assert {*shell.folder.iterdir()} < before  # the folder in which it was to be made is gone
    assert "Traceback" not in terminal.text
