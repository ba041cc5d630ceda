"""Every merge keeps the laws in whole federations: placement, resume, and what was predicted.

Merges of the table in test_every_pair.py are tried there, beside every other setting.
"""

import math
from pathlib import Path
from typing import Any

import pytest
from one_process import QuickRun, outcome

from scaling_fl.composition.prediction import predict
from scaling_fl.config.merges import MERGES

IN_THE_TABLE = ("mean", "mean_of_senders", "ties")
SETTINGS: dict[str, Any] = {
    "num_clients": 4,
    "adapter": {"kind": "lora", "rank": 4},
    "tiers": [{"rank": 2}, {"upload": {"codec": "nf4"}}],
}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in MERGES if name not in IN_THE_TABLE},
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
