"""A plan for a config.json alone: the plan of the whole model, which no run takes."""

import json
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.composition import prediction
from scaling_fl.composition.prediction import predict
from scaling_fl.config import ConfigurationError, read_config
from tests.causal_models import bpe_tokenizer, tiny_gpt2, tiny_llama
from tests.tiny_models import save_model

SETTINGS: dict[str, Any] = {
    **{"task_name": "20newsgroups", "max_seq_len": 16, "batch_size": 4},
    **{"num_clients": 6, "clients_per_round": 2, "num_rounds": 3, "optimiser": "adamw"},
}
KINDS: dict[str, dict[str, Any]] = {
    "whole": {},
    "lora": {"adapter": {"kind": "lora"}},
    "dora": {"adapter": {"kind": "dora"}, "upload": {"codec": "nf4", "density": 0.5}},
    "products": {"adapter": {"kind": "lora"}, "merge": {"method": "flexlora"}},
    "regmean": {"merge": {"method": "regmean"}},
    "heads": {
        "adapter": {"kind": "lora"},
        "download": {"density": 0.5, "keep_heads": True},
        "upload": {"density": 0.25, "keep_heads": True},
    },
    "tiers": {"adapter": {"kind": "lora"}, "tiers": [{"rank": 2}, {"rank": 8}]},
    "scaffold": {"scaffold": True, "optimiser": "sgd"},
}


NO_WEIGHTS: dict[str, Any] = {"needs_weights": False}


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_is_that_of_the_whole_model(kind: str, tmp_path: Path) -> None:
    folder = save_model("gemma2", tmp_path)
    plans = [
        predict(read_config(SETTINGS | KINDS[kind] | {"model": model}, **options), print)
        for model, options in ((str(folder), {}), (str(folder / "config.json"), NO_WEIGHTS))
    ]
    assert plans[0] == plans[1]


OF_LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "packing": {"packing": True},
    "checkpointing": {"gradient_checkpointing": True},
    "16 bits": {"load": {"bits": 16}},
    "8 bits": {"load": {"bits": 8}, "adapter": {"kind": "lora"}},
    "4 bits": {"load": {"bits": 4}, "gradient_checkpointing": True},
    "one scale": {"load": {"bits": 4, "double_quantisation": False}},
}


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        *((tiny_llama, kind) for kind in OF_LANGUAGE_MODELS),
        *((tiny_gpt2, kind) for kind in ("plain", "packing", "checkpointing", "16 bits")),
    ],
)
def test_so_is_that_of_a_language_model(make: Any, kind: str, tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    bpe_tokenizer().save_pretrained(tmp_path)
    of_task = {"task_name": "generalnlp", "adapter": {"kind": "dora"}, "num_local_steps": 2}
    of_task |= OF_LANGUAGE_MODELS[kind]
    plans = [
        predict(read_config(SETTINGS | of_task | {"model": model}, **options), print)
        for model, options in ((str(tmp_path), {}), (str(tmp_path / "config.json"), NO_WEIGHTS))
    ]
    assert plans[0] == plans[1]
    assert plans[0].trainable_parameters < plans[0].total_parameters


def test_a_run_needs_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for model in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(ConfigurationError) as caught:
            read_config(SETTINGS | {"model": str(model)})
        assert str(caught.value) == (
            "1 problem in the configuration:\nmodel must have weights, which only scripts/plan.py "
            f"does without, got '{model}', a config.json without weights; give the folder or the "
            "id of the whole model."
        )


def test_a_plan_of_a_large_model_makes_no_vector_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336}
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "mistral", **shape}))
    made: list[int] = []
    monkeypatch.setattr(prediction, "make_link", _counting(prediction.make_link, made))
    plan = predict(read_config(SETTINGS | {"model": str(file)}, **NO_WEIGHTS), print)
    assert plan.trainable_parameters == plan.total_parameters > 7_000_000_000
    assert made == [0]


def _counting(make: Any, made: list[int]) -> Any:
    """Let ``make_link`` say how many values the masks of its link have."""

    def counting(*given: Any) -> Any:
        link = make(*given)
        masks = (link.always_down, link.always_up, link.personal, *link.turns)
        made.append(sum(len(mask) for mask in masks if mask is not None))
        return link

    return counting
