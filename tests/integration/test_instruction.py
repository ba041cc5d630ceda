"""What holds for classification holds for the instruction tuning of causal language models.

Each row must come to the same, bit for bit, on one worker in one go and on two workers that are
interrupted and resumed as two of three sites (law 1), and cost what was predicted (laws 5 and 7).
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import settings
from one_process import QuickRun, outcome
from peft import PeftModel
from transformers import AutoModelForCausalLM

from scaling_fl.commands import export
from scaling_fl.composition.conversations import look_at_conversations
from scaling_fl.composition.prediction import predict
from scaling_fl.composition.restored import restore, settings_of
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import read_config
from scaling_fl.learning.tasks.instruction.family import InstructionTuning
from scaling_fl.reporting.look_conversations import render_conversations
from scaling_fl.runtime.tracking.places import every_saved, open_saved
from tests.tiny_models import WORDS

_CPU = torch.device("cpu")
LORA = {"kind": "lora", "rank": 4}
ROWS: dict[str, dict[str, Any]] = {
    "lora and nf4 both ways": {
        "adapter": {**LORA, "targets": "all-linear"},
        "download": {"codec": "nf4"},
        "upload": {"codec": "nf4", "error_feedback": True},
    },
    "flexlora of dora with tiers": {
        "adapter": {"kind": "dora", "rank": 4, "dropout": 0.1},
        "merge": {"method": "flexlora"},
        "tiers": [{"rank": 1}, {"rank": 3}, {}],
    },
    "packing and accumulation": {
        "adapter": LORA,
        "packing": True,
        "gradient_accumulation_steps": 2,
        "num_local_steps": 2,
        "num_local_epochs": 2,
        "batch_size": 2,
        "max_seq_len": 480,
        "load": {"attention": "eager"},
        "data_order": "fixed",
    },
    "flasc with a frozen mask": {
        "adapter": LORA,
        "download": {"density": 0.25},
        "upload": {"density": 0.25},
        "server_freeze": True,
    },
    "noise": {
        "adapter": LORA,
        "weighting": "uniform",
        "clients_per_round": 2,
        "sampling": "poisson",
        "privacy": {"clip": 0.5, "noise_multiplier": 0.5},
    },
    "stack of a base that moves": {"adapter": LORA, "merge": {"method": "stack"}},
    "cosine and adam on the server": {
        "adapter": LORA,
        "schedule": {"kind": "cosine", "final_learning_rate": 0.001},
        "server": {"optimiser": "adam", "learning_rate": 0.01},
    },
    "clients of a column by their own chat": {
        "adapter": LORA,
        "task_name": "instruction",
        "partition": {"kind": "column", "column": "who"},
        "num_clients": 4,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of questions whose answers are one of their words."""
    folder = tmp_path_factory.mktemp("instruction")
    for split, number in (("train", 60), ("test", 20)):
        rows = [
            {
                "instruction": f"Say the word after {WORDS[n % 10]}.",
                "input": WORDS[(n * 3) % 10],
                "output": " ".join([WORDS[(n + 1) % 10]] * (1 + n % 3)),
                "who": f"client {n % 4}",
            }
            for n in range(number)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines)
    settings(folder)  # the table of classification beside it, which the harness wants
    return folder


def changes_of(name: str, folder: Path) -> dict[str, Any]:
    paths = {f"{split}_path": str(folder / f"{split}.jsonl") for split in ("train", "test")}
    usual = {"task_name": "generalnlp", "max_seq_len": 256, "batch_size": 4, "learning_rate": 0.02}
    return usual | paths | ROWS[name]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if i > 2 else []) for i, n in enumerate(ROWS)],
)
def test_instruction_tuning_keeps_the_laws(name: str, folder: Path, tmp_path: Path) -> None:
    changes = changes_of(name, folder)
    whole = QuickRun(tmp_path / "whole", shared=folder, **changes).start_here()
    parts = {"shared": folder, **changes}
    QuickRun(tmp_path / "parts", site_ids=[0, 1], **parts).start_here(stop_after=1)
    resumed = QuickRun(tmp_path / "parts", site_ids=[0, 0, 1], **parts).start_here()
    assert outcome(resumed) == outcome(whole)
    predicted, metrics = predict(whole.config, lambda text: None), whole.record.metrics
    epsilon = metrics.get("privacy.epsilon", {"values": [None]})["values"][-1]
    assert predicted.epsilon == epsilon
    if name != "noise":  # nobody can know who is drawn
        assert predicted.download_bytes == metrics["bytes.download"]["values"]
        assert predicted.upload_bytes == metrics["bytes.upload"]["values"]
    assert metrics["validation.loss"]["values"][-1] < metrics["validation.loss"]["values"][0] or (
        name in ("noise", "flasc with a frozen mask")
    )


def test_a_fixed_order_repeats_the_rows_of_round_1(folder: Path) -> None:
    from scaling_fl.composition.clients import make_clients
    from scaling_fl.composition.data import load_data
    from scaling_fl.composition.model import load_trainer

    def seen(order: str) -> list[list[list[int]]]:
        changes = {**changes_of("noise", folder), "num_local_steps": 2, "data_order": order}
        changes |= {"privacy": {}, "sampling": "fixed", "num_local_epochs": 2}
        config = read_config(settings(folder, **changes))
        data = load_data(config, 4, lambda text: None)
        trainer = load_trainer(config, data, _CPU, note=lambda text: None, stage=lambda text: None)
        clients = make_clients(config, trainer, data)
        rounds = (clients._order(0, number, data.partitions[0]) for number in (1, 2))
        return [[batch.tolist() for batch in batches] for batches in rounds]

    first, second = seen("fixed")
    assert first == second
    fresh, other = seen("fresh")
    assert fresh != other
    assert fresh == first


@pytest.mark.slow
def test_the_packaged_rows_need_no_file_and_their_test_rows_are_held_out(tmp_path: Path) -> None:
    config = read_config({"task_name": "generalnlp", "model": "tiny", "max_seq_len": 512})
    task = make_task(config)
    train, test = (task.load_examples(split) for split in ("train", "test"))
    assert len(train) + len(test) + train.num_left_out + test.num_left_out == 999  # type: ignore[attr-defined]
    assert len(test) <= 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_every_saved_round_becomes_a_folder_that_peft_loads(
    folder: Path, tmp_path: Path, own_signals: None
) -> None:
    changes = {**changes_of("lora and nf4 both ways", folder), "save_every": 2}
    run = QuickRun(tmp_path / "run", shared=folder, **changes).start_here()
    options = {"checkpoints": [run.url], "out": tmp_path / "out", "adapter": True, "each": True}
    assert export.main(options) == 0
    saved = [open_saved(place, pytest.fail) for place in every_saved(run.url, pytest.fail)]
    assert [state.checkpoint.round for state in saved] == [2, 3]
    for state in saved:
        place = tmp_path / "out" / f"round-{state.checkpoint.round:06d}"
        base = AutoModelForCausalLM.from_pretrained(place / "base_model", dtype=torch.float32)
        loaded = PeftModel.from_pretrained(base, str(place)).eval()
        config = settings_of(state, {})
        trainer = restore(state, config, make_task(config), _CPU)
        ids = torch.arange(1, 33).reshape(1, 32)
        with torch.no_grad():
            ours = trainer.model.eval()(input_ids=ids).logits  # type: ignore[operator]
            assert torch.equal(loaded(input_ids=ids).logits, ours)


def test_a_look_shows_what_is_learned_and_what_is_left_out(folder: Path) -> None:
    name = "clients of a column by their own chat"
    config = read_config(settings(folder, **changes_of(name, folder)))
    task = make_task(config)
    assert isinstance(task, InstructionTuning)
    look = look_at_conversations(config, task, lambda text: None)
    train = task.load_examples("train")
    assert look.client_names == [f"client {n}" for n in range(4)]
    assert (sum(look.sizes), sum(look.tokens)) == (60, int(train.lengths.sum()))
    assert (look.train.num_cut, look.train.num_left_out) == (0, 0)
    assert look.examples[0].learned == f"{WORDS[1]}<|im_end|>\n"
    assert look.examples[0].learned in look.examples[0].text
    shown = render_conversations(look.to_json())
    assert shown.startswith("train         60 conversations: ")
    assert "852 tokens are learned" in shown
    assert "learned: chamber<|im_end|>" in shown
    assert max(map(len, shown.splitlines())) <= 80
