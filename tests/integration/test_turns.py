"""Parts of the pairs in a whole federation: what rests stays, and what clients keep is theirs."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import write_corpus
from one_process import QuickRun
from transformers import AutoModelForSequenceClassification

from scaling_fl.commands.evaluate import EvaluationRequest, evaluate
from scaling_fl.commands.export import ExportRequest, merge
from scaling_fl.commands.model import load_model
from scaling_fl.composition.prediction import predict
from scaling_fl.core.errors import UserError

FED_ADAM = {"optimiser": "adam", "learning_rate": 0.01, "bias_correction": False}
TURNS: dict[str, dict[str, Any]] = {
    "decay": {"weight_decay": 0.5, "server": FED_ADAM},
    "momentum": {"server": {"momentum": 0.9}, "upload": {"density": 0.5, "error_feedback": True}},
    "noise": {"weighting": "uniform", "privacy": {"clip": 0.5, "noise_multiplier": 1.0}},
    "dora": {"adapter": {"kind": "dora", "rank": 4}, "download": {"codec": "int8"}},
}


@pytest.mark.parametrize("changes", TURNS.values(), ids=list(TURNS))
def test_what_is_not_in_its_turn_rests(
    changes: dict[str, Any], corpus: Path, tmp_path: Path
) -> None:
    settings = {"adapter": {"kind": "lora", "rank": 4}, "merge": {"method": "alternate"}} | changes
    run = QuickRun(tmp_path / "run", shared=corpus, keep_last=None, **settings).start_here()
    if not settings.keys() & {"privacy", "upload", "download"}:  # nothing is lost on the way
        assert max(run.results()["merge.residual"][1]) < 1e-6
    states = [run.state(number) for number in (1, 2, 3)]
    for number, (before, after) in enumerate(pairwise(states), start=2):
        rests, moves = ("lora_A", "lora_B") if number % 2 else ("lora_B", "lora_A")
        for name, value in after.items():
            if rests in name:
                assert torch.equal(value, before[name])
            elif moves in name or "classifier" in name:
                assert not torch.equal(value, before[name])


SHARED: dict[str, Any] = {
    "adapter": {"kind": "lora", "rank": 4},
    "merge": {"method": "share_a"},
    "iid_split": False,
    "clients_per_round": 2,
    "learning_rate": 0.05,
    "keep_last": None,
}


def reported(run: QuickRun, number: int) -> dict[str, float]:
    return {
        name: values[steps.index(number)]
        for name, (steps, values) in run.results().items()
        if name.startswith("validation.")
    }


def test_what_clients_keep_is_saved_and_costs_what_was_foretold(
    corpus: Path, tmp_path: Path
) -> None:
    run = QuickRun(tmp_path / "run", shared=corpus, **SHARED).start_here()
    state, others = run.state(3), run.state(3, "optimiser")
    size_of_a = sum(value.numel() for name, value in state.items() if "lora_A" in name)
    size = sum(value.numel() for value in state.values())
    kept = {name: value for name, value in others.items() if "personal" in name}
    seen = {row["client"] for row in run.record.clients}
    assert kept.keys() == {f"memory.personal.{client}" for client in seen}
    assert {value.numel() for value in kept.values()} == {size - size_of_a}
    foretold = predict(run.config, lambda text: None)
    saved = sum(value.nbytes for value in [*state.values(), *others.values()])
    assert foretold.checkpoint_bytes == saved
    assert foretold.upload_bytes == [2 * (28 + 4 * size_of_a)] * 3
    for name, value in state.items():
        assert torch.equal(value, run.state(1)[name]) != ("lora_A" in name)


def test_a_personal_run_is_evaluated_to_its_bits(corpus: Path, tmp_path: Path) -> None:
    tiers = {"tiers": [{"rank": 2}, {"download": {"density": 0.5}}], "seed": 3}
    both = {"upload": {"codec": "int8", "error_feedback": True}}
    for number, changes in enumerate((tiers, both, {}), start=1):
        run = QuickRun(tmp_path / f"run{number}", shared=corpus, **SHARED | changes).start_here()
        place = f"{run.checkpoints}/round-{number:06d}"
        request = EvaluationRequest(checkpoint=place)
        assert evaluate(request).overall == reported(run, number)
        if "tiers" in changes:  # nobody has what one tier receives and a client of another keeps
            assert not any(".tier" in name for name in reported(run, number))
            with pytest.raises(UserError, match="has a model for each client and none for a tier"):
                evaluate(replace(request, tiers=True))
    found = reported(run, 3)["validation.accuracy"]
    (client, *_) = sorted({row["client"] for row in run.record.clients})
    alone = EvaluationRequest(checkpoint=str(run.checkpoints), client=client)
    assert evaluate(alone).overall["validation.accuracy"] < found  # it knows its own labels best


def test_the_training_data_must_be_that_of_the_run(corpus: Path, tmp_path: Path) -> None:
    shared = tmp_path / "data"
    shared.mkdir()
    run = QuickRun(tmp_path / "run", shared=shared, **SHARED).start_here()
    write_corpus(shared / "train.csv", num_rows=90, seed=7)
    with pytest.raises(UserError, match=r"train_path must have the training data of .*"):
        evaluate(EvaluationRequest(checkpoint=str(run.checkpoints)))


def test_the_model_of_one_client_is_exported_and_no_other(corpus: Path, tmp_path: Path) -> None:
    run = QuickRun(tmp_path / "run", shared=corpus, **SHARED).start_here()
    clients = sorted({row["client"] for row in run.record.clients})
    request = ExportRequest(checkpoints=[str(run.checkpoints)], out=tmp_path / "none")
    with pytest.raises(UserError, match="--client must name a client, because each client of "):
        merge(request)
    with pytest.raises(UserError, match=r"--client must be one that has taken part .* got 9; "):
        merge(replace(request, client=9))
    with pytest.raises(UserError, match=r"^client must name a client, because each client of "):
        load_model(str(run.checkpoints))
    heads = []
    for client in clients[:2]:
        out = tmp_path / f"client{client}"
        merge(replace(request, client=client, out=out))
        model = AutoModelForSequenceClassification.from_pretrained(out)
        heads.append(model.classifier.weight.detach())
        loaded = load_model(str(run.checkpoints), client).state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())
        assert json.loads((out / "merged_from.json").read_text())["client"] == client
    assert not torch.equal(*heads)
    plain = QuickRun(tmp_path / "plain", shared=corpus, num_rounds=1).start_here()
    with pytest.raises(UserError, match="has one model for all; leave it out"):
        merge(replace(request, checkpoints=[str(plain.checkpoints)], client=0))
