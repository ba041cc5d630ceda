"""Law 1: one worker = several workers = resumed after kill -9, bitwise, metrics included."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from harness import Run
from one_process import QuickRun, outcome

from scaling_fl.runtime.machines.launch import WorkerFailed
from tests.dice import seed_of_the_day
from tests.tiny_models import FAMILIES, save_model


def test_one_worker_equals_two_and_four_sites_on_two(corpus: Path, tmp_path: Path) -> None:
    one = Run(tmp_path / "one", shared=corpus).start()
    for name, site_ids in (("two", [0, 1]), ("four_on_two", [0, 0, 1, 1])):
        run = Run(tmp_path / name, shared=corpus, site_ids=site_ids).start()
        assert outcome(run) == outcome(one)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_trains_alike_on_one_worker_and_on_two(
    corpus: Path, tmp_path: Path, family: str
) -> None:
    folder = str(save_model(family, tmp_path / "model"))
    changes = {"model": folder, "max_seq_len": 16, "num_rounds": 2}
    one = QuickRun(tmp_path / "one", shared=corpus, **changes).start_here()
    two = QuickRun(tmp_path / "two", shared=corpus, site_ids=[0, 1], **changes).start_here()
    assert outcome(one, round_number=2) == outcome(two, round_number=2)


@pytest.mark.parametrize(
    "seed", ["of the day", *(pytest.param(n, marks=pytest.mark.nightly) for n in range(10))]
)
def test_workers_killed_at_random_moments_lose_and_double_nothing(
    corpus: Path, tmp_path: Path, seed: int | str
) -> None:
    changes = {"num_rounds": 8, "num_local_epochs": 2}
    whole = QuickRun(tmp_path / "whole", shared=corpus, **changes).start_here()
    rng = random.Random(seed_of_the_day() if seed == "of the day" else seed)
    for attempt in range(8):
        run = Run(tmp_path / "killed", shared=corpus, site_ids=[0, 1], **changes)
        # The last attempts are left alone, so that the job comes to its end.
        if kill_at_random(run, rng, patience=rng.uniform(0.0, 1.2) if attempt < 4 else None):
            break
    assert run.record.last_round == 8
    assert outcome(run, round_number=8) == outcome(whole, round_number=8)


def kill_at_random(run: Run, rng: random.Random, patience: float | None) -> bool:
    """Kill a worker some time after it was ready; True when the run came to its end."""
    ready: list[float] = []

    def kill(run: Run) -> None:
        if not ready and any(event["event"] == "ready" for event in run.events):
            ready.append(time.monotonic())
        if patience is not None and ready and time.monotonic() - ready[0] > patience and run.group:
            victims = [pid for pid in run.group.pids if is_alive(pid)]
            if victims:
                os.kill(rng.choice(victims), signal.SIGKILL)
                ready[0] = float("inf")

    with contextlib.suppress(WorkerFailed):
        run.start(tick=kill)
        return True
    return False


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
