"""Law 1: one worker = several workers = resumed after kill -9, bitwise, metrics included."""

import contextlib
import os
import random
import signal
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from harness import Run

from scaling_fl.runtime.machines.launch import WorkerFailed

METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sampled_prox_uniform": {
        "num_clients": 6,
        "clients_per_round": 0.5,
        "prox_mu": 0.1,
        "weighting": "uniform",
        "optimiser": "sgd",
        "momentum": 0.9,
        "learning_rate": 0.05,
        "partition": {"kind": "dirichlet_by_class", "alpha": 0.5},
    },
    "steps_clip_cosine_grouped": {
        "num_local_epochs": 2,  # the default, which steps overrule
        "num_local_steps": 3,
        "max_grad_norm": 0.5,
        "length_grouped": True,
        "schedule": {"kind": "cosine", "final_learning_rate": 0.001},
        "server": {"learning_rate": 0.7},
        "iid_split": False,
    },
    "flasc_with_server_adamw": {
        "adapter": {"kind": "lora", "rank": 4, "dropout": 0.1, "modules_to_save": "pooler"},
        "download": {"density": 0.25, "evaluate": True},
        "upload": {"density": 0.1, "density_decay": 0.5, "decay_every": 2},
        "server": {"optimiser": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
    },
    "dora_without_a_int8_down_nf4_double_of_the_largest_up": {
        "adapter": {"kind": "dora", "freeze_a": True},
        "download": {"codec": "int8"},
        "upload": {"codec": "nf4_double", "density": 0.3},
    },
    "nf4_states_of_heads": {
        "adapter": {"kind": "head"},
        "num_clients": 3,
        "download": {"codec": "nf4"},
        "upload": {"codec": "nf4", "values": "state"},
        "weighting": "uniform",
    },
    "error_feedback_in_tiers": {
        "num_clients": 5,
        "clients_per_round": 3,
        "adapter": {"kind": "lora", "rank": 4},
        "tiers": [
            {"rank": 1},
            {"rank": 3, "upload": {"codec": "int8"}, "num_local_steps": 1},
            {"download": {"density": 0.5}},
        ],
        "tier_ranks": "largest",
        "upload": {"codec": "nf4", "density": 0.5, "error_feedback": True},
        "merge": {"method": "mean_of_senders"},
    },
    "frozen_masks_with_server_momentum": {
        "adapter": {"kind": "lora", "rank": 4},
        "download": {"density": 0.25, "keep_heads": True},
        "upload": {"density": 0.2},
        "client_freeze": True,
        "server_freeze": True,
        "server": {"momentum": 0.9},
    },
    "private": {
        "num_clients": 6,
        "clients_per_round": 3,
        "weighting": "uniform",
        "upload": {"codec": "int8"},
        "privacy": {"clip": 0.5, "noise_multiplier": 0.5},
    },
    "private_by_an_adaptive_clip_and_poisson_sampling": {
        "num_clients": 6,
        "clients_per_round": 2,
        "sampling": "poisson",
        "weighting": "uniform",
        "privacy": {"clip": 0.5, "noise_multiplier": 0.5, "target_quantile": 0.5},
    },
    "private_groups": {
        "weighting": "uniform",
        "cohorts": [[0, 1], [2, 3]],
        "privacy": {
            "clip": 0.5,
            "noise_multiplier": 0.5,
            "unit": "group",
            "groups_per_client": 4,
            "groups_per_round": 2,
        },
    },
}
SLOW_METHODS = [
    pytest.param(name, marks=pytest.mark.slow) for name in sorted(METHODS) if name != "plain"
]


def outcome(run: Run, round_number: int = 3) -> dict[str, Any]:
    """All that a run came to, less its times: equal outcomes are equal to the last bit."""
    return {
        "digest": run.digest,
        "state": {
            name: sha256(value.numpy().tobytes()).digest()
            for part in ("state", "optimiser")
            for name, value in run.state(round_number, part).items()
        },
        "metrics": run.results(),
        "clients": [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in run.record.clients
        ],
    }


def test_one_worker_equals_two_and_four_sites_on_two(corpus: Path, tmp_path: Path) -> None:
    one = Run(tmp_path / "one", shared=corpus).start()
    for name, site_ids in (("two", [0, 1]), ("four_on_two", [0, 0, 1, 1])):
        run = Run(tmp_path / name, shared=corpus, site_ids=site_ids).start()
        assert outcome(run) == outcome(one)


@pytest.mark.parametrize("method", ["plain", *SLOW_METHODS])
def test_two_workers_resumed_as_two_of_three_sites_equal_one_worker_in_one_go(
    corpus: Path, tmp_path: Path, method: str
) -> None:
    changes = METHODS[method]
    whole = Run(tmp_path / "whole", shared=corpus, **changes).start()
    stopped = Run(tmp_path / "parts", shared=corpus, site_ids=[0, 1], **changes)

    asked: list[int] = []

    def stop_after_round_1(run: Run) -> None:
        if not asked and run.group and any(e["event"] == "round" for e in run.events):
            run.group.request_stop(signal.SIGTERM)
            asked.append(signal.SIGTERM)

    stopped.start(tick=stop_after_round_1)
    assert stopped.record.last_round >= 1
    resumed = Run(tmp_path / "parts", shared=corpus, site_ids=[0, 0, 1], **changes).start()
    assert resumed.record.last_round == 3
    assert outcome(resumed) == outcome(whole)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_workers_killed_at_random_moments_lose_and_double_nothing(
    corpus: Path, tmp_path: Path, seed: int
) -> None:
    changes = {"num_rounds": 8, "num_local_epochs": 2}
    whole = Run(tmp_path / "whole", shared=corpus, **changes).start()
    rng = random.Random(seed)
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
