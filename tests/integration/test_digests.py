"""The digest of a round covers all that a model of the run consists of."""

from pathlib import Path
from typing import Any

import pytest
from one_process import QuickRun

from scaling_fl.core.digest import digest
from scaling_fl.core.state import Memory
from scaling_fl.runtime.record.chain import chain_digest
from scaling_fl.runtime.record.checkpoints import Checkpoints
from scaling_fl.runtime.storage import open_storage

LORA = {"adapter": {"kind": "lora", "rank": 2}, "num_rounds": 2}
SGD = {"optimiser": "sgd", "learning_rate": 0.05}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "the base": ("base.moved", {"merge": {"method": "exact"}}),
    "control variates": ("scaffold.control", {"scaffold": True, **SGD}),
    "clients' parts": ("personal", {"merge": {"method": "share_a"}}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_digest_covers_what_is_remembered_of_a_model(
    kind: str, corpus: Path, tmp_path: Path
) -> None:
    name, changes = KINDS[kind]
    run = QuickRun(tmp_path, shared=corpus, clients_per_round=2, **LORA | changes).start_here()
    saved = Checkpoints(open_storage(run.url), None, print).load(2)
    tensors = {key.removeprefix("memory."): value for key, value in saved.optimiser.items()}
    memory, manifest = Memory.from_tensors(tensors), saved.manifest

    def chained(remembered: dict[str, Any]) -> str:
        return chain_digest(
            manifest["previous_digest"],
            round=2,
            cohort=manifest["cohort"],
            computation_digest=digest(manifest["progress"]["computation"]),
            vector=saved.vector,
            remembered=remembered,
        )

    covered = memory.only([name], manifest["cohort"]).to_tensors()
    assert covered
    assert chained(covered) == saved.digest
    for key, value in covered.items():
        assert chained({**covered, key: value + 1}) != saved.digest
