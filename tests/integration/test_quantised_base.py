"""Jobs on a base of 4, 8 or 16 bits: evaluated, foretold and exported as what they trained."""

import json
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from one_process import QuickRun
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from scaling_fl.commands.evaluate import EvaluationRequest, evaluate
from scaling_fl.commands.export import ExportRequest, merge
from scaling_fl.commands.model import load_model
from scaling_fl.composition.prediction import predict
from scaling_fl.composition.restored import restore, settings_of
from scaling_fl.composition.tasks import make_task
from scaling_fl.config.load_settings import LoadSettings
from scaling_fl.core.errors import UserError
from scaling_fl.learning.models.causal import load_causal_tokenizer
from scaling_fl.learning.models.quantised import dequantised, loading_options, settle
from scaling_fl.learning.options import Load
from scaling_fl.runtime.tracking.places import open_saved

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.slow,
]
CASES = [(4, "lora"), (4, "dora"), (8, "lora"), (16, "dora")]
ANSWERS = {"What is red?": "Blood is.", "What is blue?": "The sky is.", "What is green?": "Grass."}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small Llama, and with rows to train it on."""
    place = tmp_path_factory.mktemp("causal")
    tokenizer = load_causal_tokenizer("tiny", place)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(place / "model")
    tokenizer.save_pretrained(place / "model")
    rows = [{"instruction": q, "output": a} for q, a in ANSWERS.items()] * 8
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (place / "train.jsonl").write_text(text)
    (place / "test.jsonl").write_text(text)
    return place


def settings(folder: Path, bits: int, kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "task_name": "instruction",
        "model": str(folder / "model"),
        "train_path": str(folder / "train.jsonl"),
        "test_path": str(folder / "test.jsonl"),
        "num_clients": 2,
        "max_seq_len": 64,
        "learning_rate": 0.01,
        "gradient_checkpointing": True,
        "load": {"bits": bits},
        "adapter": {"kind": kind, "rank": 2, "targets": "all-linear"},
        **changes,
    }


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[1]} on {case[0]} bits")
def run(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> QuickRun:
    place = tmp_path_factory.mktemp("run")
    return QuickRun(place / "run", shared=place, **settings(folder, *request.param)).start_here()


def load_of(run: QuickRun) -> Load:
    return Load(**run.config.load.model_dump())


def base_of(run: QuickRun) -> Any:
    """Load the base as others do, without this project's ways."""
    base = AutoModelForCausalLM.from_pretrained(run.config.model, **loading_options(load_of(run)))
    settle(base)
    return base


def logits(model: nn.Module) -> Tensor:
    ids = torch.randint(3, 250, (4, 8), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found: Tensor = model.eval()(input_ids=ids).logits
    return found.float()


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_every_round_learns_and_is_evaluated_to_the_bits_that_it_reported(run: QuickRun) -> None:
    curves = run.results()
    for number in (1, 2, 3):
        place = f"{run.checkpoints}/round-{number:06d}"
        found = evaluate(EvaluationRequest(checkpoint=place)).overall
        for name, value in found.items():
            steps, values = curves[name]
            assert value == values[steps.index(number)], name
    losses = curves["validation.loss"][1]
    assert sorted(losses, reverse=True) == losses
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_two_workers_and_a_resumed_job_come_to_the_bits_of_one_worker(
    folder: Path, tmp_path: Path, bits: int
) -> None:
    one, two, again = (
        QuickRun(
            tmp_path / name,
            shared=tmp_path,
            **settings(folder, bits, "lora", optimiser="adamw_8bit", **changes),
        )
        for name, changes in (("one", {}), ("two", {"site_ids": [0, 1]}), ("again", {}))
    )
    one.start_here()
    two.start_here()
    again.start_here(stop_after=1).start_here()
    assert one.digest is not None
    assert two.digest == again.digest == one.digest
    assert two.results() == again.results() == one.results()


def test_an_exported_adapter_is_loaded_by_peft_onto_the_same_base(
    run: QuickRun, tmp_path: Path
) -> None:
    saved = open_saved(str(run.checkpoints), lambda text: None)
    config = settings_of(saved, {})
    expected = logits(restore(saved, config, make_task(config), torch.device("cpu")).model)
    merge(ExportRequest(checkpoints=[str(run.checkpoints)], out=tmp_path / "out", adapter=True))
    assert (
        json.loads((tmp_path / "out/adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"
    )
    assert (
        distance(logits(PeftModel.from_pretrained(base_of(run), tmp_path / "out")), expected) < 1e-5
    )
    assert logits(base_of(run)).sub(expected).norm() > 0.1 * expected.norm()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)


def test_an_exported_model_answers_as_the_adapter_on_the_dequantised_base(
    run: QuickRun, tmp_path: Path
) -> None:
    place = str(run.checkpoints)
    merge(ExportRequest(checkpoints=[place], out=tmp_path / "adapter", adapter=True))
    base = dequantised(base_of(run))
    expected = logits(PeftModel.from_pretrained(base, tmp_path / "adapter"))
    merge(ExportRequest(checkpoints=[place], out=tmp_path / "whole"))
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    assert {parameter.dtype for parameter in whole.parameters()} == {torch.float32}
    assert distance(logits(whole), expected) < 1e-5
    assert distance(logits(load_model(place)), expected) < 1e-5


def test_the_card_of_an_adapter_has_code_that_loads_it(run: QuickRun, tmp_path: Path) -> None:
    merge(ExportRequest(checkpoints=[str(run.checkpoints)], out=tmp_path / "out", adapter=True))
    code = (tmp_path / "out/README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace('folder = "."', f"folder = {str(tmp_path / 'out')!r}"), names)
    settle(names["base"])
    expected = logits(PeftModel.from_pretrained(base_of(run), tmp_path / "out"))
    assert distance(logits(names["model"]), expected) < 1e-5


def test_a_plan_counts_the_bytes_of_the_base(run: QuickRun) -> None:
    predicted = predict(run.config, lambda text: None)
    assert run.results()["bytes.upload"][1] == predicted.upload_bytes
    linear = 2 * 7 * 128 * 128
    rest = predicted.total_parameters - predicted.trainable_parameters - linear
    plain = predict(run.config.model_copy(update={"load": LoadSettings()}), lambda text: None)
    assert plain.total_parameters == predicted.total_parameters
    saved = plain.memory["model"] - predicted.memory["model"]
    bits = {4: 4.127, 8: 8.25, 16: 16}[run.config.load.bits]
    of_rest = 2 * rest if run.config.load.bits == 16 else 0
    assert saved == pytest.approx(linear * (32 - bits) / 8 + of_rest, rel=1e-3)


def test_a_base_of_other_bits_is_another_model(run: QuickRun, folder: Path) -> None:
    changes = {"init_from": str(run.checkpoints)}
    bits = 32 if run.config.load.bits < 32 else 4
    other = settings(folder, bits, run.config.adapter.kind, **changes)
    with pytest.raises(UserError, match=r"load\.bits"):
        QuickRun(run.folder.parent / "next", shared=run.folder.parent, **other).start_here()


def test_a_worker_quantises_its_base_once_for_all_clients_and_rounds(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantised: list[torch.Size] = []

    def counted(weights: Tensor, **options: Any) -> Any:
        quantised.append(weights.shape)
        return quantise(weights, **options)

    quantise = bitsandbytes.functional.quantize_4bit
    monkeypatch.setattr(bitsandbytes.functional, "quantize_4bit", counted)
    given = settings(folder, 4, "lora", num_clients=4, num_rounds=3)
    run = QuickRun(tmp_path / "run", shared=folder, **given).start_here()
    assert len(run.record.clients) == 12
    assert len(quantised) == 2 * 7, "the linear layers of two blocks"
