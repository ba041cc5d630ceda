"""The command that writes a project, as a person answers its questions in a terminal."""

import sys
import time

import pytest

from scaling_fl.commands.new_experiment import questions
from tests.e2e.commands import ROOT, Shell
from tests.e2e.terminals import CONTROL, Terminal

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NEW = [sys.executable, str(ROOT / "scripts" / "new_experiment.py"), "sums"]


def asked(shell: Shell, *argv: str) -> Terminal:
    return Terminal([*NEW, *argv], shell.folder, shell.environ | {"TERM": "xterm"})


def wait_for(terminal: Terminal, question: str) -> None:
    for _ in range(300):
        if question[:40] in CONTROL.sub("", terminal.text):  # a line's end may follow
            return
        time.sleep(0.1)
    raise AssertionError(terminal.text)


def test_what_is_not_given_is_asked_and_a_wrong_answer_asked_again(shell: Shell) -> None:
    typed = {
        "task_name": "\x15generalnlp\r",  # Ctrl-U takes the default away
        "bf16": "n",
        "peft_lora_r": "\x150\r",
    }
    terminal = asked(shell, "--data", "base_model=tiny")
    for name, details in questions().items():
        if name == "base_model":
            continue
        wait_for(terminal, details["help"])
        terminal.press(typed.get(name, "\r"))
        if name == "peft_lora_r":
            wait_for(terminal, "must be at least 1, got 0")
            terminal.press("\x7f3\r")  # 3 in place of 0
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
