"""Models from a hub and from folders, through real workers: downloaded once, trained, refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Run

from scaling_fl.runtime.machines.launch import WorkerFailed
from tests.model_hub import Hub, model_hub
from tests.tiny_models import save_model

pytestmark = [pytest.mark.servers, pytest.mark.slow]

ONE_ROUND: dict[str, Any] = {"num_rounds": 1, "num_local_epochs": 2, "num_local_steps": 1}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, and no copy of it here."""
    save_model("bert", tmp_path / "hub" / "someone" / "tiny-bert")
    with model_hub(tmp_path / "hub") as hub:
        for name, value in hub.environment(tmp_path / "hf-home").items():
            monkeypatch.setenv(name, value)
        yield hub


def test_a_model_of_the_hub_is_downloaded_once_and_trains(
    hub: Hub, corpus: Path, tmp_path: Path
) -> None:
    changes = {**ONE_ROUND, "site_ids": [0, 1], "max_seq_len": 16}
    run = Run(tmp_path / "run", shared=corpus, model="someone/tiny-bert", **changes).start(
        fresh=True
    )
    assert run.record.last_round == 1
    assert run.printed == []
    assert hub.downloads("/model.safetensors") == 1
    # The same files in a folder are the same model: what was computed is the same to the bit.
    folder = hub.folder / "someone" / "tiny-bert"
    local = Run(tmp_path / "local", shared=corpus, model=str(folder), **ONE_ROUND).start(fresh=True)
    assert all(torch.equal(run.state(1)[name], value) for name, value in local.state(1).items())


def test_a_model_that_was_downloaded_needs_no_hub_any_more(
    hub: Hub, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Run(tmp_path / "first", shared=corpus, model="someone/tiny-bert", **ONE_ROUND).start(
        fresh=True
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.requests)
    again = Run(tmp_path / "again", shared=corpus, model="someone/tiny-bert", **ONE_ROUND).start(
        fresh=True
    )
    assert len(hub.requests) == asked
    assert again.digest == first.digest


def test_an_id_that_the_hub_does_not_know_is_told_in_one_sentence(
    hub: Hub, corpus: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", shared=corpus, site_ids=[0, 1], model="someone/no-bert")
    with pytest.raises(WorkerFailed) as caught:
        run.start(fresh=True)
    message = str(caught.value)
    assert message.startswith(
        "model must be one of albert, bert, distilbert, minilm, smollm2, dinov2_small, tiny"
    )
    assert "got someone/no-bert, which could not be loaded (someone/no-bert is not a" in message
    assert message.endswith("; check the name and the network.")
    assert "\n" not in message
    assert caught.value.report == ""
    assert run.printed == []
    assert not list(run.checkpoints.glob("round-*"))


def test_code_of_a_repository_is_neither_run_nor_asked_for(
    hub: Hub, corpus: Path, tmp_path: Path
) -> None:
    repository = save_model("bert", hub.folder / "someone" / "with-code")
    config = json.loads((repository / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (repository / "config.json").write_text(json.dumps(config))
    (repository / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    run = Run(tmp_path / "run", shared=corpus, model="someone/with-code")
    with pytest.raises(WorkerFailed, match="contains custom code which must be executed"):
        run.start(fresh=True)
    assert not (tmp_path / "ran").exists()
    assert hub.downloads("own.py") == 0
