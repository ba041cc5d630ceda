"""Clients that diverge, workers that die, and stops: nothing that was finished is lost."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from harness import Run
from one_process import QuickRun

from scaling_fl.core.errors import UserError
from scaling_fl.core.waiting import silence_seconds
from scaling_fl.runtime.machines.launch import WorkerFailed

HUGE = {"learning_rate": 1e6, "optimiser": "sgd", "num_local_epochs": 3}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "train.csv: the file must have rows, and is empty; check the path."),
        ("id,text,writer\n1,raven,EAP\n", "train.csv, row 1, column 'author': the header must"),
        ("id,text,author\n1,raven,POE\n", "train.csv, row 2, column 'author': the label must"),
        ("id,text,author\n1,,EAP\n", "train.csv, row 2, column 'text': the text must not"),
    ],
)
def test_data_that_cannot_be_used_is_one_sentence(
    corpus: Path, tmp_path: Path, text: str, error: str
) -> None:
    path = tmp_path / "train.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(error)):
        QuickRun(tmp_path / "run", shared=corpus, train_path=str(path)).start_here()


def test_too_few_usable_clients_fail_the_run_naming_them(corpus: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", shared=corpus, site_ids=[0, 1], min_clients=4, **HUGE)
    with pytest.raises(WorkerFailed, match=r"min_clients=4 .* got .* of 4 in round 1 \(client"):
        run.start()
    assert run.record.last_round == 0


def test_mu_and_momentum_change_the_result_and_mu_0_does_not(corpus: Path, tmp_path: Path) -> None:
    base = {"optimiser": "sgd", "learning_rate": 0.1, "num_rounds": 1}
    variants = {
        "plain": {},
        "mu_0": {"prox_mu": 0.0},
        "mu": {"prox_mu": 1.0},
        "momentum": {"momentum": 0.9},
        "server_half": {"server": {"learning_rate": 0.5}},
        "clip": {"max_grad_norm": 0.01},
        "uniform": {"weighting": "uniform", "partition": {"kind": "dirichlet_by_class"}},
        "by_examples": {"partition": {"kind": "dirichlet_by_class"}},
    }
    states = {
        name: QuickRun(tmp_path / name, shared=corpus, **(base | changes)).start_here().state(1)
        for name, changes in variants.items()
    }
    flat = {name: torch.cat([v.flatten() for v in s.values()]) for name, s in states.items()}
    assert torch.equal(flat["plain"], flat["mu_0"])
    different = ["plain", "mu", "momentum", "server_half", "clip", "uniform", "by_examples"]
    for i, first in enumerate(different):
        for second in different[i + 1 :]:
            assert not torch.equal(flat[first], flat[second]), (first, second)


def test_a_stop_abandons_the_round_and_keeps_the_one_before(corpus: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", shared=corpus, site_ids=[0, 1], num_rounds=500, save_every=500)

    asked: list[int] = []

    def stop(run: Run) -> None:
        rounds = sum(event["event"] == "round" for event in run.events)
        if rounds >= 2 and not asked and run.group:
            run.group.request_stop(signal.SIGTERM)
            asked.append(signal.SIGTERM)

    run.start(tick=stop)
    assert run.stopped_by == signal.SIGTERM
    last = run.record.last_round
    assert 2 <= last < 500
    # Nothing was due to be saved, so the stop itself saved the last finished round.
    assert run.manifest(last)["digest"] == run.digest


def test_a_killed_worker_ends_the_others_within_seconds(corpus: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", shared=corpus, site_ids=[0, 1], num_rounds=5000, save_every=5000)
    killed: list[float] = []

    def kill(run: Run) -> None:
        if not killed and any(event["event"] == "round" for event in run.events) and run.group:
            os.kill(run.group.pids[1], signal.SIGKILL)
            killed.append(time.monotonic())

    with pytest.raises(WorkerFailed, match=r"worker 1 \(site id 1, .* was ended by SIGKILL"):
        run.start(tick=kill)
    assert time.monotonic() - killed[0] < silence_seconds({})
