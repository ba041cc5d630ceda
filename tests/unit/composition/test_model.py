"""The model of a run: what it lacks is told before the first round."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from scaling_fl.composition.model import load_model, load_trainer
from scaling_fl.config import read_config
from scaling_fl.core.errors import UserError
from tests.tiny_models import make_classification, save_model


@pytest.mark.parametrize(
    ("family", "adapter", "told"),
    [
        ("bert_mlm", {"kind": "lora"}, "adapter.modules_to_save=bert.pooler.dense trains that"),
        ("bert_mlm", {"kind": "head"}, "comes without bert.pooler.dense, drawn from the seed"),
        ("bert_mlm", {"kind": "lora", "modules_to_save": ["pooler"]}, None),
        ("bert_mlm", {"kind": "none"}, None),
        ("bert", {"kind": "lora"}, None),
    ],
)
def test_new_weights_that_are_not_trained_are_told(
    family: str, adapter: dict[str, Any], told: str | None, tmp_path: Path
) -> None:
    model = str(save_model(family, tmp_path))
    config = read_config({"task_name": "20newsgroups", "model": model, "adapter": adapter})
    data: Any = SimpleNamespace(task=make_classification(model))
    notes: list[str] = []
    load_trainer(config, data, torch.device("cpu"), note=notes.append, stage=notes.append)
    assert notes[0] == f"loading model {model}"
    assert [told in note for note in notes[1:]] == [True] * (told is not None)


def test_bits_that_a_task_does_not_heed_are_refused() -> None:
    base = {"task_name": "generalnlp", "model": "tiny", "adapter": {"kind": "lora"}}
    config = read_config({**base, "load": {"bits": 16}})
    with pytest.raises(UserError, match=r"load\.bits must be 32 .* does not heed options\.load"):
        load_model(config, make_classification())
    assert load_model(read_config(base), make_classification())


def test_layers_that_cannot_be_computed_again_are_told() -> None:
    config = read_config(
        {"task_name": "generalnlp", "model": "tiny", "gradient_checkpointing": True}
    )
    task: Any = SimpleNamespace(load_model=lambda: torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"gradient_checkpointing must be False .*, got a Linear"):
        load_model(config, task)
