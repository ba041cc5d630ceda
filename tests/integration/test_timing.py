"""The predicted time: measured on every kind of federation, and the sum of its parts."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from one_process import QuickRun

from scaling_fl.composition.timing import PlannedTime, measure

STEPS = {"num_local_epochs": 2, "num_local_steps": 6}  # the epochs as if left alone
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tiers": {"adapter": {"kind": "lora", "rank": 4}, "tiers": [{"rank": 4}, {"rank": 1}]},
    "noise": {
        "weighting": "uniform",
        "clients_per_round": 2,
        "privacy": {"clip": 1.0, "noise_multiplier": 1.0},
    },
    "groups": {
        "weighting": "uniform",
        "privacy": {
            "unit": "group",
            "clip": 1.0,
            "noise_multiplier": 1.0,
            "groups_per_client": 4,
            "groups_per_round": 2,
        },
    },
    "memory": {"upload": {"density": 0.5, "error_feedback": True}, **STEPS},
    "control": {"optimiser": "sgd", "scaffold": True, **STEPS},
    "ties": {"merge": {"method": "ties"}},
}


def timing_of(tmp_path: Path, corpus: Path, **changes: Any) -> PlannedTime:
    config = QuickRun(tmp_path / "run", shared=corpus, **changes).config
    sites = [config.site_ids.index(site) for site in config.site_ids]
    began = time.perf_counter()
    return measure(
        config,
        sites,
        device_id=0,
        num_threads=1,
        began=began,
        num_rounds=lambda: config.num_rounds,
        stage=lambda text: None,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_any_federation_can_be_measured(
    tmp_path: Path, corpus: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALING_FL_NOISE_SECRET", "0" * 64)
    timing = timing_of(tmp_path, corpus, **KINDS[kind])
    assert min(asdict(timing).values()) >= 0
    # On a busy machine a step, or all else of a turn, may come out as nothing; not both.
    assert timing.step + timing.client > 0
    assert timing.merge > 0
    assert not list(tmp_path.rglob("round-*"))


def test_the_rounds_are_their_steps_turns_merges_checkpoints_and_evaluations(
    tmp_path: Path, corpus: Path
) -> None:
    changes = {"num_rounds": 5, "eval_every": 3, "save_every": 4}
    changes |= {"site_ids": [0, 1], "num_clients": 5}
    found = timing_of(tmp_path, corpus, **changes, **STEPS)
    # The worker of three of the five clients takes longest; rounds 3 and 5 are evaluated, and
    # rounds 4 and 5 saved.
    expected = 5 * (3 * (found.client + 6 * found.step) + found.merge)
    expected += 2 * found.evaluation + 2 * found.save
    assert found.rounds == pytest.approx(expected)
    assert found.round == pytest.approx(expected / 5)


def test_a_client_alone_has_all_that_its_merge_takes(tmp_path: Path, corpus: Path) -> None:
    found = timing_of(tmp_path, corpus, num_clients=1, num_rounds=2, **STEPS)
    each = found.client + 6 * found.step + found.merge + found.save + found.evaluation
    assert found.rounds == pytest.approx(2 * each)
