"""A wait is told, and told again, but not too often; its limits are numbers of seconds."""

import threading
import time

import pytest

from scaling_fl.core import waiting
from scaling_fl.core.errors import UserError
from scaling_fl.core.waiting import (
    Waiting,
    answers,
    bounded,
    join_seconds,
    silence_seconds,
    told_when_slow,
)
from tests.servers import free_port
from tests.silent_server import silent_server


def test_what_is_fast_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with told_when_slow("the store", after_seconds=5):
        pass
    assert capsys.readouterr().err == ""


def test_what_is_slow_is_said_and_said_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "SAY_AGAIN_SECONDS", 0.05)
    with told_when_slow("it", after_seconds=0.02):
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert set(lines) == {"waiting for it (0 s)"}


def test_the_same_wait_is_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    wait = Waiting(said.append)
    for second in range(130):
        now[0] = float(second)
        wait("one" if second < 125 else "two")
    assert said == ["one", "one", "one", "two"]


def test_limits_have_defaults_and_an_empty_variable_is_none() -> None:
    assert (join_seconds({}), silence_seconds({})) == (900.0, 20.0)
    assert join_seconds({"SCALING_FL_JOIN_SECONDS": ""}) == 900.0
    assert silence_seconds({"SCALING_FL_SILENCE_SECONDS": "1.5"}) == 1.5


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_a_limit_that_is_no_number_of_seconds_is_named(text: str) -> None:
    with pytest.raises(UserError, match=f"JOIN_SECONDS must be a number of seconds, got '{text}'"):
        join_seconds({"SCALING_FL_JOIN_SECONDS": text})


def test_what_never_ends_is_given_up_and_all_else_passes_through() -> None:
    assert bounded(lambda: 7, seconds=5) == 7
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 / 0, seconds=5)
    came, goes_on = threading.Event(), threading.Event()
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        bounded(lambda: came.set() or goes_on.wait(), seconds=0.1)
    assert came.wait(60)
    goes_on.set()


def test_a_server_answers_or_does_not() -> None:
    with silent_server() as url:
        assert not answers(url, "it", seconds=0.1)
    assert not answers(f"http://127.0.0.1:{free_port()}", "it", seconds=5)
