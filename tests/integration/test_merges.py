"""Every merge keeps the laws in whole federations: placement, resume, and what was predicted.

Merges of the table in test_every_pair.py are tried there, beside every other setting.
"""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import settings
from one_process import QuickRun, outcome

from scaling_fl.composition.prediction import predict
from scaling_fl.config import read_config
from scaling_fl.config.merges import MERGES
from scaling_fl.conformance.workers import ThreadExchange
from tests.live_tensors import live_bytes

IN_THE_TABLE = ("mean", "mean_of_senders", "ties")
SETTINGS: dict[str, Any] = {
    "num_clients": 5,
    "adapter": {"kind": "lora", "rank": 4},
    "tiers": [{"rank": 2}, {"upload": {"codec": "nf4"}}],
}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (name, {"merge": {"method": name, **row.tried_with}})
        for name, row in MERGES.items()
        if name not in IN_THE_TABLE
    },
    "ties on products": ("ties", {"merge": {"method": "ties", "on": "products"}}),
    "krum on products": ("krum", {"merge": {"method": "krum", "on": "products"}}),
    "ties by tensor": ("ties", {"merge": {"method": "ties", "trim_by": "tensor"}}),
    "flexlora by rank": ("flexlora", {"merge": {"method": "flexlora", "weigh_by": "rank"}}),
    "exact, the rest later": ("exact", {"upload": {"density": 0.5, "error_feedback": True}}),
    "mean, own scales": ("mean", {"tier_scale": "own"}),
    "flexlora, one scale": ("flexlora", {"tier_scale": "adapter"}),
}


BY_DEFAULT = ("flexlora", "exact", "share_a", "regmean", "ties on products")


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c in BY_DEFAULT else [pytest.mark.slow]) for c in CASES],
)
def test_a_merge_comes_to_the_same_wherever_it_runs(
    case: str, corpus: Path, tmp_path: Path
) -> None:
    name, settings = CASES[case]
    changes = SETTINGS | {"shared": corpus, "merge": {"method": name}} | settings
    whole = QuickRun(tmp_path / "whole", **changes).start_here()
    QuickRun(tmp_path / "parts", **changes, site_ids=[0, 1]).start_here(stop_after=1)
    resumed = QuickRun(tmp_path / "parts", **changes, site_ids=[0, 0, 1]).start_here()
    assert outcome(resumed) == outcome(whole)
    predicted = predict(whole.config, lambda text: None)
    assert whole.results()["bytes.upload"][1] == predicted.upload_bytes
    assert whole.results()["bytes.download"][1] == predicted.download_bytes
    if MERGES[name].personal:  # the server has no products
        assert "merge.residual" not in whole.results()
    else:
        assert all(0.0 <= value < math.inf for value in whole.results()["merge.residual"][1])


class Weighed(QuickRun):
    """A run that knows the bytes of all tensors before each of its steps."""

    weights: list[int]

    def _check(self) -> None:
        self.weights.append(live_bytes())


@pytest.mark.slow
def test_a_plan_counts_the_factors_that_a_worker_keeps_of_its_clients(
    corpus: Path, tmp_path: Path
) -> None:
    """They are A and B of all that trained before, for ``merge.residual``."""
    changes = {"adapter": {"kind": "lora", "rank": 8}, "num_rounds": 1, "batch_size": 128}
    run = Weighed(tmp_path / "run", shared=corpus, num_clients=5, **changes)
    run.weights = []
    run.start_here()
    planned = predict(run.config, lambda text: None).memory["clients' factors"]
    _, *weights = run.weights  # each client takes one step, and gradients are there from then on
    grown = [after - before for before, after in pairwise(weights)]
    assert grown == pytest.approx([planned / 4] * 3, rel=0.1)
    alone = read_config(settings(corpus, num_clients=1, **changes))
    assert "clients' factors" not in predict(alone, lambda text: None).memory


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "name"),
    [("consensus_mask", "kept updates"), ("median", "decoded updates")],
)
def test_a_plan_counts_what_a_worker_keeps_until_all_have_trained(
    method: str, name: str, corpus: Path, tmp_path: Path
) -> None:
    """As columns, updates are kept as they arrived, too."""
    changes = {"adapter": {"kind": "none"}, "num_rounds": 1, "merge": {"method": method}}
    changes |= {"batch_size": 128}
    run = Weighed(tmp_path / "run", shared=corpus, num_clients=5, **changes)
    run.weights = []
    run.start_here()
    foreseen = predict(run.config, lambda text: None)
    vector = 4 * foreseen.trainable_parameters
    assert foreseen.memory["kept updates"] == pytest.approx(6 * vector, rel=0.01)
    grown = [after - before for before, after in pairwise(run.weights[2:])]
    of_client = (foreseen.memory["kept updates"] - vector) / 5
    of_client += foreseen.memory[name] / 5 if method == "median" else 0
    assert grown == pytest.approx([of_client] * 2, rel=0.01)


@pytest.mark.parametrize(
    ("method", "on"),
    [
        ("regmean", "factors"),
        ("dare", "products"),
        ("ties", "factors"),
        ("ties", "products"),
    ],
)
def test_a_plan_counts_all_sums(
    method: str, on: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, zeros = list[int](), ThreadExchange.zeros

    def counted(exchange: ThreadExchange, size: int, device: torch.device) -> torch.Tensor:
        sizes.append(size)
        return zeros(exchange, size, device)

    monkeypatch.setattr(ThreadExchange, "zeros", counted)
    merge = {"method": method} | ({"on": on} if on == "products" else {})
    changes = {"adapter": {"kind": "lora", "rank": 4}, "num_clients": 4, "merge": merge}
    run = QuickRun(tmp_path / "run", shared=corpus, **changes).start_here()
    assert len(sizes) > 1
    assert predict(run.config, lambda text: None).memory["exact sums"] == 8 * sum(sizes)
