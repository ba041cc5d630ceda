"""Parts of the pairs, trained in turns: what rests stays as it is in a whole federation."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from one_process import QuickRun

TURNS: dict[str, dict[str, Any]] = {
    "decay": {"weight_decay": 0.5, "server": {"optimiser": "yogi", "learning_rate": 0.01}},
    "momentum": {"server": {"momentum": 0.9}, "upload": {"density": 0.5, "error_feedback": True}},
    "noise": {"weighting": "uniform", "privacy": {"clip": 0.5, "noise_multiplier": 1.0}},
    "dora": {"adapter": {"kind": "dora", "rank": 4}, "download": {"codec": "int8"}},
}


@pytest.mark.parametrize("changes", TURNS.values(), ids=list(TURNS))
def test_what_is_not_in_its_turn_rests(
    changes: dict[str, Any], corpus: Path, tmp_path: Path
) -> None:
    settings = {"adapter": {"kind": "lora", "rank": 4}, "merge": {"method": "alternate"}} | changes
    run = QuickRun(tmp_path / "run", shared=corpus, keep_last=None, **settings).start_here()
    states = [run.state(number) for number in (1, 2, 3)]
    for number, (before, after) in enumerate(pairwise(states), start=2):
        rests, moves = ("lora_A", "lora_B") if number % 2 else ("lora_B", "lora_A")
        for name, value in after.items():
            if rests in name:
                assert torch.equal(value, before[name])
            elif moves in name or "classifier" in name:
                assert not torch.equal(value, before[name])
