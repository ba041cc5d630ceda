"""SCAFFOLD in a whole federation: the server's control variate is the mean of the clients' own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from one_process import QuickRun

SETTINGS: dict[str, Any] = {
    "optimiser": "sgd",
    "learning_rate": 0.05,
    "scaffold": True,
    "adapter": {"kind": "lora", "rank": 2},
}


@pytest.mark.parametrize("weighting", ["uniform", "examples"])
def test_only_clients_that_can_take_part_count_in_the_mean(
    weighting: str, corpus: Path, tmp_path: Path
) -> None:
    changes = SETTINGS | {"cohorts": [[3], [1, 3]], "weighting": weighting}
    changes |= {"partition": {"kind": "dirichlet_by_class"}}
    run = QuickRun(tmp_path / "run", shared=corpus, **changes).start_here()
    kept = run.state(3, "optimiser")
    sizes = {row["client"]: row["num_examples"] for row in run.record.clients}
    assert sorted(sizes) == [1, 3]
    assert sizes[1] != sizes[3]
    share = 0.5 if weighting == "uniform" else sizes[1] / (sizes[1] + sizes[3])
    own = [kept[f"memory.scaffold.control.{client}"] for client in (1, 3)]
    mean = share * own[0] + (1 - share) * own[1]
    assert torch.allclose(kept["memory.scaffold.control"], mean, atol=1e-6)
