"""Federations on pages: they keep every law, and what they send is what CMU's entry sent."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_process import QuickRun, outcome
from safetensors.torch import load_file
from transformers import T5ForConditionalGeneration

from scaling_fl.commands.export import ExportRequest, merge
from scaling_fl.composition.prediction import predict
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import read_config
from scaling_fl.methods.wire.payloads import payload_size
from tests.invoices import save_small_udop, save_small_vt5, write_invoices

LORA = {"kind": "lora", "rank": 6, "alpha": 16.0, "dropout": 0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("invoices")
    write_invoices(folder, "train", range(16))
    write_invoices(folder, "val", range(20, 26))
    return folder


def documents(folder: Path, **changes: Any) -> dict[str, Any]:
    """Describe a federation on invoices, whose clients are those of the table."""
    base: dict[str, Any] = {
        "task_name": "docvqa",
        "train_path": str(folder / "train.parquet"),
        "test_path": str(folder / "val.parquet"),
        "max_seq_len": 96,
        "batch_size": 4,
        "num_clients": 2,
        "partition": {"kind": "column", "column": "client"},
        "data": {"cache_dir": str(folder / "cache")},
        "shared": folder,
    }
    return base | changes


@pytest.mark.slow
def test_answers_do_not_depend_on_placement_or_on_a_stop(folder: Path, tmp_path: Path) -> None:
    changes = documents(folder, adapter=LORA, upload={"codec": "nf4", "values": "state"})
    whole = QuickRun(tmp_path / "whole", **changes).start_here()
    QuickRun(tmp_path / "b", **changes | {"site_ids": [0, 1]}).start_here(stop_after=1)
    resumed = QuickRun(tmp_path / "b", **changes | {"site_ids": [0, 1]}).start_here()
    assert outcome(resumed) == outcome(whole)
    assert {"validation.loss", "validation.accuracy", "validation.anls"} <= whole.results().keys()


@pytest.mark.slow
def test_a_merged_and_quantised_export_is_the_model_that_was_evaluated(
    folder: Path, tmp_path: Path
) -> None:
    """CMU's chain: client 0, then client 1 from there, parameters in NF4, merged and zipped."""
    changes = documents(
        folder,
        adapter=LORA,
        cohorts=[[0], [1]],
        num_rounds=2,
        download={"codec": "nf4"},
        upload={"codec": "nf4", "values": "state"},
    )
    run = QuickRun(tmp_path / "run", **changes).start_here()
    out = tmp_path / "models" / "c1"
    place = str(run.checkpoints)
    text = merge(ExportRequest(checkpoints=[place], out=out, quantize="nf4", zip=True))
    assert "a model that reads pages for tiny" in text
    names = {f"c1/{file.name}" for file in out.iterdir()}
    assert {"c1/config.json", "c1/model.safetensors", "c1/tokenizer.json"} <= names
    assert set(zipfile.ZipFile(out.with_name("c1.zip")).namelist()) == names
    # NF4 of what came through NF4 is the same, so the export is the state of the last round.
    task = make_task(run.config.model_copy(update={"model": str(out)}))
    model, test = task.load_model(), task.load_examples("test")
    with torch.no_grad():
        counts = task.count(model, test.batch(np.arange(len(test))))
    found = task.metrics(counts, detailed=False)
    for name, (_, values) in run.results().items():
        if name in ("validation.loss", "validation.accuracy", "validation.anls"):
            assert found[name.partition(".")[2]] == pytest.approx(values[-1], rel=1e-4), name
    t5 = T5ForConditionalGeneration.from_pretrained(
        out, key_mapping={r"^language_backbone\.": ""}
    ).state_dict()
    for name, value in load_file(out / "model.safetensors").items():
        if name.startswith("language_backbone."):
            assert torch.equal(t5[name.removeprefix("language_backbone.")], value), name


VT5_BASE = {
    **{"model_type": "t5", "d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    **{"vocab_size": 32128, "visual_module_config": {}},
}


@pytest.mark.slow
def test_the_entry_of_cmu_sends_four_and_a_half_bits_a_parameter(
    folder: Path, tmp_path: Path
) -> None:
    """Both ways: 4 bits of each of 3,419,136 parameters, and an fp32 scale for each 64 of them."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(VT5_BASE))
    given = documents(folder, model=str(file), adapter=LORA, max_seq_len=512)
    given |= {"download": {"codec": "nf4"}, "upload": {"codec": "nf4", "values": "state"}}
    given |= {"num_rounds": 2, "clients_per_round": 1, "batch_size": 1, "val_batch_size": 1}
    del given["shared"]
    plan = predict(read_config(given, needs_weights=False), lambda text: None)
    assert plan.trainable_parameters == 3_419_136
    body = 3_419_136 * 45 // 80
    assert body == 3_419_136 // 2 + 4 * (3_419_136 // 64) == 1_923_264
    size = payload_size(3_419_136, None, "nf4")
    assert 0 < size - body < 100  # a header
    assert plan.download_bytes == plan.upload_bytes == [size, size]


@pytest.mark.slow
def test_a_small_vt5_learns_to_answer_about_invoices_that_it_has_not_seen(tmp_path: Path) -> None:
    """Amounts and dates are each told apart by the word before them alone."""
    model = tmp_path / "model"
    model.mkdir()
    run = QuickRun(
        tmp_path / "run",
        **documents(
            tmp_path,
            model=str(save_small_vt5(model)),
            train_path=str(write_invoices(tmp_path, "train", range(800))),
            test_path=str(write_invoices(tmp_path, "val", range(800, 900))),
            num_rounds=6,
            num_local_epochs=3,
            batch_size=16,
            optimiser="adamw",
            learning_rate=2e-3,
            eval_every=6,
        ),
    ).start_here()
    results = run.results()
    assert results["validation.anls"][1][-1] > 0.8, results
    assert results["validation.accuracy"][1][-1] > 0.6, results


@pytest.mark.slow
def test_udop_learns_in_the_same_federation(folder: Path, tmp_path: Path) -> None:
    model = save_small_udop(tmp_path / "model")
    run = QuickRun(tmp_path / "run", **documents(folder, model=str(model), adapter=LORA))
    _, losses = run.start_here().results()["validation.loss"]
    assert losses == sorted(losses, reverse=True), losses
    out = tmp_path / "out"
    merge(ExportRequest(checkpoints=[str(run.checkpoints)], out=out))
    task = make_task(run.config.model_copy(update={"model": str(out)}))
    test = task.load_examples("test")
    with torch.no_grad():
        counts = task.count(task.load_model(), test.batch(np.arange(len(test))))
    assert task.metrics(counts, detailed=False)["loss"] == pytest.approx(losses[-1], rel=1e-4)
