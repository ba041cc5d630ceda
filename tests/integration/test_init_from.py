"""A job may start from what another one has saved: client 0, and then client 1."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Run

from scaling_fl.runtime.machines.launch import WorkerFailed

pytestmark = pytest.mark.slow

CHAIN: dict[str, Any] = {
    "num_clients": 2,
    "num_rounds": 1,
    "adapter": {"kind": "lora", "rank": 4},
    "upload": {"codec": "nf4", "values": "state"},
    "weighting": "uniform",
}


def test_a_job_starts_from_the_state_of_another(corpus: Path, tmp_path: Path) -> None:
    first = Run(tmp_path / "c0", shared=corpus, clients=[0], **CHAIN).start()
    changes = CHAIN | {"clients": [1], "init_from": str(first.checkpoints), "upload": {}}
    # Steps too small for fp32 leave what the job started from.
    still = Run(tmp_path / "still", shared=corpus, learning_rate=1e-30, **changes).start()
    for name, value in first.state(1).items():
        assert torch.equal(still.state(1)[name], value), name
    one = Run(tmp_path / "c1", shared=corpus, **changes).start()
    two = Run(tmp_path / "c1_on_two", shared=corpus, site_ids=[0, 1], **changes).start()
    assert one.digest == two.digest != still.digest
    assert [row["client"] for row in one.record.clients] == [1]

    named = changes | {"init_from": f"{first.checkpoints}/round-000001"}
    assert Run(tmp_path / "by_round", shared=corpus, **named).start().digest == one.digest

    shutil.rmtree(first.checkpoints)
    further = Run(tmp_path / "c1", shared=corpus, **changes | {"num_rounds": 2}).start()
    assert further.record.last_round == 2
    with pytest.raises(WorkerFailed, match="init_from must be a folder that exists"):
        Run(tmp_path / "gone", shared=corpus, **changes).start()


def test_a_state_of_another_adapter_is_refused(corpus: Path, tmp_path: Path) -> None:
    first = Run(tmp_path / "c0", shared=corpus, clients=[0], **CHAIN).start()
    changes = CHAIN | {"init_from": str(first.checkpoints)}
    for adapter, what in (({"rank": 2}, "parameter 0 was"), ({"alpha": 8.0}, "adapter.alpha was")):
        changes["adapter"] = CHAIN["adapter"] | adapter
        with pytest.raises(WorkerFailed, match=f"init_from must be of the same model.*{what}"):
            Run(tmp_path / what, shared=corpus, **changes).start()
