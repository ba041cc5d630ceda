"""How the command ends is what Flower, or the training command on it, says of the run."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from scaling_fl.commands import flower_run
from scaling_fl.commands.endings import ROOT
from scaling_fl.commands.flower_run import check_words, main, run_to_the_end
from scaling_fl.core.errors import InputError, UserError
from scaling_fl.flower.control import COMPLETED, Control, FlowerRun

FAILED = "finished:failed"


class Ended(Control):
    """A SuperLink on which a run has ended."""

    def __init__(self, status: str, details: str = "N/A") -> None:
        super().__init__({}, "own")
        object.__setattr__(self, "found", FlowerRun("7", status, details))

    def submit(self, app, settings, federation=None):
        object.__setattr__(self, "settings", settings)
        return "7"

    @contextmanager
    def output(self, run_id, look_seconds):
        yield iter(["round 1/1 | train loss 0.5"])

    def run(self, run_id):
        return self.found

    def stop(self, run_id):
        object.__setattr__(self, "stopped", run_id)


def run(status: str, details: str = "N/A", words: tuple[str, ...] = ("demo",)) -> Ended:
    link = Ended(status, details)
    run_to_the_end(link, "no mark", words, Path("/app"), lambda: True)
    return link


def test_a_run_that_completed_is_shown_and_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(COMPLETED).found.is_over
    assert capsys.readouterr().out == "round 1/1 | train loss 0.5\n"


def test_words_reach_the_app_as_a_shell_would_part_them() -> None:
    link = run(COMPLETED, words=("demo", "author=A. Poe", "site_ids=[0,1]"))
    assert link.settings == {"with": "demo 'author=A. Poe' 'site_ids=[0,1]'"}


@pytest.mark.parametrize(
    ("status", "details", "said"),
    [
        (FAILED, "ServerApp failed with exception: not\n all came", "failed: not all came"),
        (FAILED, "Simulation failed with exception: boom", "failed: boom"),
        (FAILED, "N/A", "failed"),
        ("finished:stopped", "", "stopped"),
    ],
)
def test_a_run_that_did_not_complete_is_one_sentence(status: str, details: str, said: str) -> None:
    with pytest.raises(UserError) as failure:
        run(status, details)
    assert str(failure.value) == f"the run on Flower {said}"
    assert not isinstance(failure.value, InputError)


@pytest.mark.parametrize(("code", "kind"), [(1, UserError), (2, InputError), (143, UserError)])
def test_what_the_training_command_has_said_is_not_said_again(code: int, kind: type) -> None:
    details = f"ServerApp failed with exception: the run ended with exit code {code}; its output"
    with pytest.raises(UserError, match="the line above that starts with Error: says") as failure:
        run(FAILED, details)
    assert type(failure.value) is kind


def test_settings_are_refused_before_anything_is_started() -> None:
    with pytest.raises(InputError, match="num_rounds must be a whole number, got 'x'"):
        check_words(["demo", "num_rounds=x"], ROOT)
    with pytest.raises(InputError, match="with must be followed by settings, got none"):
        check_words([], ROOT)
    check_words(["nothing=of", "ours"], Path("/another/app"))


def test_without_flower_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(**needs: bool) -> None:
        raise UserError("Flower must be installed")

    monkeypatch.setattr(flower_run, "check_installed", missing)
    monkeypatch.setattr(flower_run, "raise_on_signals", lambda: None)
    assert main(["demo"], federation={}, app=ROOT) == 1
    assert capsys.readouterr().err == "Error: Flower must be installed.\n"


def test_an_interrupted_command_ends_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(flower_run, "show", interrupt)
    link = Ended("running")
    with pytest.raises(KeyboardInterrupt):
        run_to_the_end(link, "no mark", ["demo"], Path("/app"), lambda: True)
    assert link.stopped == "7"
