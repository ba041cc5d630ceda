"""A job may start from what another one has saved: client 0, and then client 1."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from one_process import QuickRun

from scaling_fl.core.errors import UserError

CHAIN: dict[str, Any] = {
    "num_clients": 2,
    "num_rounds": 1,
    "adapter": {"kind": "lora", "rank": 4},
    "upload": {"codec": "nf4", "values": "state"},
    "weighting": "uniform",
}


def test_a_job_starts_from_the_state_of_another(corpus: Path, tmp_path: Path) -> None:
    first = QuickRun(tmp_path / "c0", shared=corpus, clients=[0], **CHAIN).start_here()
    changes = CHAIN | {"clients": [1], "init_from": str(first.checkpoints), "upload": {}}
    # Steps too small for fp32 leave what the job started from.
    still = QuickRun(tmp_path / "still", shared=corpus, learning_rate=1e-30, **changes).start_here()
    for name, value in first.state(1).items():
        assert torch.equal(still.state(1)[name], value), name
    one = QuickRun(tmp_path / "c1", shared=corpus, **changes).start_here()
    two = QuickRun(tmp_path / "c1_on_two", shared=corpus, site_ids=[0, 1], **changes).start_here()
    assert one.digest == two.digest != still.digest
    assert [row["client"] for row in one.record.clients] == [1]

    named = changes | {"init_from": f"{first.checkpoints}/round-000001"}
    assert QuickRun(tmp_path / "by_round", shared=corpus, **named).start_here().digest == one.digest

    shutil.rmtree(first.checkpoints)
    further = QuickRun(tmp_path / "c1", shared=corpus, **changes | {"num_rounds": 2}).start_here()
    assert further.record.last_round == 2
    with pytest.raises(UserError, match="init_from must be a folder that exists"):
        QuickRun(tmp_path / "gone", shared=corpus, **changes).start_here()


def test_a_state_of_another_adapter_is_refused(corpus: Path, tmp_path: Path) -> None:
    first = QuickRun(tmp_path / "c0", shared=corpus, clients=[0], **CHAIN).start_here()
    changes = CHAIN | {"init_from": str(first.checkpoints)}
    for adapter, what in (({"rank": 2}, "parameter 0 was"), ({"alpha": 8.0}, "adapter.alpha was")):
        changes["adapter"] = CHAIN["adapter"] | adapter
        with pytest.raises(UserError, match=f"init_from must be of the same model.*{what}"):
            QuickRun(tmp_path / what, shared=corpus, **changes).start_here()


def test_another_task_may_go_on_where_its_labels_are_the_same(corpus: Path, tmp_path: Path) -> None:
    first = QuickRun(tmp_path / "authors", shared=corpus, num_rounds=1).start_here()
    columns: dict[str, Any] = {"text": "text", "label": "author"}
    table = {"task_name": "table", "num_rounds": 1, "init_from": str(first.checkpoints)}
    data = {"cache_dir": str(corpus / "cache"), **columns}
    same = QuickRun(tmp_path / "table", shared=corpus, data=data, **table).start_here()
    assert same.record.last_round == 1
    other = {**data, "labels": "EAP,HPL,MWS,unknown"}
    with pytest.raises(UserError, match=r"init_from must be of the same model.*labels.*unknown"):
        QuickRun(tmp_path / "other", shared=corpus, data=other, **table).start_here()
