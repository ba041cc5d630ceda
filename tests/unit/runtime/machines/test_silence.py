"""A worker of this machine that stands still is told and ended; one that is busy is left alone."""

import os
import re
import signal
import time
from typing import Any

import pytest

from scaling_fl.runtime.machines import launch, silence
from scaling_fl.runtime.machines.launch import Callbacks, WorkerFailed, WorkerGroup
from scaling_fl.runtime.machines.node import read_node
from scaling_fl.runtime.machines.silence import Pulse
from tests.stand_ins import stand_ins

FREEZE = "emit('alive'); os.kill(os.getpid(), signal.SIGSTOP)"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALING_FL_SILENCE_SECONDS", "0")
    monkeypatch.setattr(launch, "VIGIL_FIRST_SECONDS", 1.0)
    monkeypatch.setattr(launch, "SAY_AFTER_SECONDS", 0.4)
    monkeypatch.setattr(silence, "_LOOK_AFTER_SECONDS", 0.0)


def play(*plays: str, wake: bool = False) -> list[str]:
    """Run stand-ins and return the notes; the one that is told to be stopped may be woken."""
    notes: list[str] = []
    group = WorkerGroup(
        read_node(list(range(len(plays))), {}), {"plays": plays}, num_threads=1, starter=stand_ins()
    )

    def hear(event: dict[str, Any]) -> None:
        notes.append(event["text"])
        if wake and "waiting for worker 0" in event["text"]:
            os.kill(group.pids[0], signal.SIGCONT)

    try:
        group.run(Callbacks(event=hear, printed=print, tick=lambda: None))
    except WorkerFailed as error:
        notes.append(str(error))
    return notes


def test_a_frozen_worker_is_told_and_ended() -> None:
    began = time.monotonic()
    told, error = play(FREEZE, "time.sleep(60)")
    assert time.monotonic() - began < 60  # the other one was ended, too
    who = r"worker 0 \(site id 0, process (\d+)\)"
    found = re.fullmatch(f"waiting for {who}, 1 s at most; a signal has stopped it, and (.*)", told)
    assert found
    assert found[2] == f"kill -CONT {found[1]} wakes it"
    assert re.fullmatch(f"{who} has been silent for 1 s and was killed; a signal had st.*", error)


def test_a_worker_that_is_woken_goes_on() -> None:
    told, goes_on = play(f"{FREEZE}; emit('alive')", wake=True)
    assert "waiting for worker 0" in told
    assert goes_on.endswith(" goes on")


def test_a_worker_that_is_busy_and_silent_is_left_alone() -> None:
    busy = "emit('alive'); end = time.time() + 2\nwhile time.time() < end: pass"
    assert play(busy) == []


def test_a_worker_that_has_said_nothing_yet_is_not_watched() -> None:
    assert play("time.sleep(1.5)") == []


def test_time_in_which_nobody_looked_is_not_silence() -> None:
    pulse = Pulse(os.getpid())
    pulse.beat()
    assert pulse.silence(1000.0) <= silence.LONGEST_STEP_SECONDS
