"""The commands on what a run has saved: they repeat its metrics, and export what it trained."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from scaling_fl.commands.evaluate import EvaluationRequest, evaluate, main
from scaling_fl.composition.model import load_model
from scaling_fl.composition.restored import restore, settings_of
from scaling_fl.composition.tasks import make_task
from scaling_fl.learning.models.loading import load_tokenizer
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.methods.wire.payloads import decode, encode
from scaling_fl.runtime.storage import open_storage
from scaling_fl.runtime.tracking.places import Saved, open_saved
from tests.e2e.commands import ROOT, Command, Job, Shell, arguments, federation
from tests.servers import free_port, moto_server

pytestmark = [
    pytest.mark.e2e,
    # peft 0.21.2 asks transformers 5.23 by a name that goes away in its version 6.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]

EVALUATE, MERGE = (str(ROOT / "scripts" / name) for name in ("evaluate.py", "merge_adapter.py"))
LABELS = {0: "EAP", 1: "HPL", 2: "MWS"}


@pytest.fixture(scope="session")
def adapted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A federation of two workers that trains a LoRA adapter of the tiny model."""
    folder = tmp_path_factory.mktemp("adapted")
    shell = Shell(folder)
    changes: dict[str, object] = {"adapter.kind": "lora", "adapter.rank": 4, "adapter.alpha": 32}
    changes |= {"num_rounds": 3, "learning_rate": 0.05, "val_batch_size": 16}
    changes |= {"job_name": "adapted", "checkpoints_dir": "checkpoints"}
    shell.train(*arguments(federation(corpus, **changes))).end(expect=0)
    assert shell.close() == []
    return Job(folder / "checkpoints", folder / "runs" / "1")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Evaluating takes the run's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(shell: Shell, script: str, *options: str, expect: int = 0, **environ: str) -> Command:
    command = shell.type(sys.executable, script, *options, **environ).end(expect=expect)
    assert "Traceback" not in command.out + command.err
    return command


def reported(job: Job, round_number: int) -> dict[str, float]:
    """The validation metrics that a run reported for a round."""
    return {
        name: values[steps.index(round_number)]
        for name, (steps, values) in job.curves.items()
        if name.startswith("validation.")
    }


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Answer texts of different lengths, as bytes of the tiny model's tokenizer."""
    ids = torch.randint(3, 250, (4, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 9:] = mask[3, 2:] = 0
    model.eval()
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    return found


def federated_logits(place: Path) -> torch.Tensor:
    """Answer with the model as a worker of the run holds it, its adapter not merged."""
    saved = open_saved(str(place), pytest.fail)
    return logits(restored(saved).model)


def restored(saved: Saved) -> LocalTrainer:
    config = settings_of(saved, {})
    return restore(saved, config, make_task(config), torch.device("cpu"))


@pytest.mark.slow
def test_a_run_is_evaluated_to_the_bits_that_it_reported(
    shell: Shell, adapted: Job, whole: Job
) -> None:
    for job, last in ((adapted, 3), (whole, 6)):
        command = run(shell, EVALUATE, str(job.run), "--json", "--per-class")
        found = json.loads(command.out)
        assert (found["round"], found["num_examples"]) == (last, 50)
        assert found["digest"] == job.digest
        overall = {k: v for k, v in found["metrics"].items() if k.count(".") == 1}
        assert overall == reported(job, last)
        assert sum(found["examples"].values()) == 50
        f1 = [found["metrics"][f"validation.f1.{name}"] for name in LABELS.values()]
        assert math.isclose(sum(f1) / 3, overall["validation.f1_macro"])


@pytest.mark.slow
def test_every_round_kept_is_evaluated_for_a_reader(shell: Shell, adapted: Job) -> None:
    for number in (1, 2):
        command = run(shell, EVALUATE, f"{adapted.checkpoints}/round-{number:06d}", "--per-class")
        lines = [line.split() for line in command.out.splitlines()]
        shown = {line[0]: float(line[1]) for line in lines if line[:1] and len(line) == 2}
        assert shown == reported(adapted, number)
        assert [line[0] for line in lines if len(line) == 5] == ["class", *LABELS.values(), "mean"]


@pytest.mark.slow
def test_other_data_is_evaluated_whole(adapted: Job, corpus: Path) -> None:
    place, other = str(adapted.checkpoints), str(corpus / "train.csv")
    whole = evaluate(EvaluationRequest(checkpoint=place, test_path=other, batch_size=7))
    assert (sum(whole.num_examples), whole.config.val_batch_size) == (96, 7)
    few = evaluate(EvaluationRequest(checkpoint=place, test_path=other, max_test_examples=12))
    assert sum(few.num_examples) == 12


@pytest.mark.slow
def test_labels_that_the_test_data_lack_are_told_and_left_out(
    adapted: Job, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *rows = (corpus / "test.csv").read_text().splitlines()
    some = tmp_path / "some.csv"
    some.write_text("\n".join([header, *(row for row in rows if row.endswith("EAP"))]))
    evaluation = evaluate(EvaluationRequest(checkpoint=str(adapted.run), test_path=str(some)))
    assert "no test example is of HPL, MWS (2 of 3 labels)" in capsys.readouterr().err
    found = evaluation.metrics
    f1 = [value for name, value in found.items() if name.startswith("validation.f1.")]
    assert found["validation.f1_macro"] == sum(f1) / len(f1)


@pytest.mark.slow
def test_a_merged_folder_answers_alike_and_is_trained_further(
    shell: Shell, adapted: Job, corpus: Path
) -> None:
    command = run(shell, MERGE, str(adapted.run), "--out", "models/merged", "--zip")
    folder = shell.folder / "models" / "merged"
    assert "wrote models/merged: a classifier for tiny" in command.out
    assert sorted(path.name for path in folder.parent.iterdir()) == ["merged", "merged.zip"]
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    expected = federated_logits(adapted.checkpoints)
    assert expected.std() > 1e-3
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    assert model.config.id2label == LABELS
    texts = ["raven abyss", ""]
    plain = load_tokenizer("tiny", Path("unused"))
    assert AutoTokenizer.from_pretrained(folder)(texts)["input_ids"] == plain(texts)["input_ids"]

    # Steps of no size leave the folder's model as it is, so its metrics are those of the run.
    settings = federation(corpus, model=str(folder), num_rounds=1, learning_rate=1e-30)
    settings |= {"val_batch_size": 16, "site_ids": [0], "optimiser": "sgd"}
    shell.train(*arguments(settings | {"checkpoints_dir": "further"})).end(expect=0)
    further = reported(Job(shell.folder / "further", shell.folder / "runs" / "1"), 1)
    before = reported(adapted, 3)
    assert further["validation.accuracy"] == before["validation.accuracy"]
    assert math.isclose(further["validation.loss"], before["validation.loss"], rel_tol=1e-5)


@pytest.mark.slow
def test_the_mean_of_quantised_checkpoints_is_an_adapter_that_peft_loads(
    shell: Shell, adapted: Job
) -> None:
    rounds = [adapted.checkpoints / f"round-{number:06d}" for number in (1, 3)]
    options = ["--weights", "2,1", "--quantize", "nf4", "--adapter", "--out", "out"]
    command = run(shell, MERGE, *map(str, rounds), *options)

    def through(vector: torch.Tensor) -> torch.Tensor:
        return decode(encode(vector, codec="nf4"), size=len(vector))

    first, second = (open_saved(str(place), pytest.fail) for place in rounds)
    a, b = (through(saved.checkpoint.vector).double() for saved in (first, second))
    mean = through(((2 * a + b) / 3).float())
    num_bytes = len(encode(mean, codec="nf4"))
    assert f"nf4 payload of each checkpoint: {num_bytes:,} bytes" in command.out
    written = load_file(shell.folder / "out" / "adapter_model.safetensors")
    expected = first.checkpoint.layout.views(mean)
    for name, value in expected.items():
        plain = name.replace(".default.", ".").replace(".modules_to_save.", ".")
        assert torch.equal(written[f"base_model.model.{plain}"], value), name
    assert len(written) == len(expected)

    origin = json.loads((shell.folder / "out" / "merged_from.json").read_text())
    assert [row["weight"] for row in origin["checkpoints"]] == [2.0, 1.0]
    assert (origin["quantize"], origin["payload_bytes"]) == ("nf4", num_bytes)
    trainer = restored(first)
    trainer.vector.copy_(mean)
    loaded = peft.PeftModel.from_pretrained(fresh_base(first), str(shell.folder / "out"))
    assert torch.equal(logits(loaded), logits(trainer.model))


def fresh_base(saved: Any) -> torch.nn.Module:
    """Make the tiny base model, which no hub has, without an adapter."""
    config = settings_of(saved, {"adapter": {"kind": "none"}})
    return load_model(config, make_task(config))


@pytest.mark.parametrize("script", [EVALUATE, MERGE])
def test_help_and_misuse_wait_for_no_library(script: str) -> None:
    for options, code in ((["--help"], 0), (["--batch-size", "0"], 2)):
        command = [sys.executable, "-X", "importtime", script, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert not imported & {"torch", "transformers", "numpy", "peft", "sacred"}
        assert "examples:" in done.stdout or code


@pytest.mark.slow
def test_errors_of_the_real_commands_are_one_sentence(shell: Shell, adapted: Job) -> None:
    place, torn = str(adapted.checkpoints), shell.folder / "round-000001"
    torn.mkdir()
    (torn / "manifest.json").write_text("{")
    cases = [
        (EVALUATE, [str(torn)], 1, "is not a whole checkpoint (its manifest cannot be read)"),
        (MERGE, [place, "--out", place], 2, "Error: --out must name a folder"),
        (MERGE, [place, "--out", "s3://bucket/x"], 2, "must be a folder on this machine"),
        (MERGE, [place, "--out", "x", "--weights", "1,-2"], 2, "must be positive numbers"),
    ]
    for script, options, code, sentence in cases:
        command = run(shell, script, *options, expect=code)
        assert command.out == ""
        assert sentence in command.err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.servers
def test_checkpoints_in_a_bucket_are_evaluated_there(
    shell: Shell,
    adapted: Job,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with moto_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        bucket: Any = open_storage("s3://bucket/job")
        bucket.fs.mkdir("bucket")
        for path in adapted.checkpoints.glob("round-*/*"):
            bucket.put(path, f"{path.parent.name}/{path.name}")
        command = run(shell, EVALUATE, "s3://bucket/job", "--json", **server.environment)
        assert json.loads(command.out)["metrics"] == reported(adapted, 3)
        second = evaluate(EvaluationRequest(checkpoint="s3://bucket/job/round-000002"))
        assert second.overall == reported(adapted, 2)
        assert main({"checkpoint": "s3://nosuch/job"}) == 1
        assert "the bucket does not exist" in capsys.readouterr().err.splitlines()[-1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        assert main({"checkpoint": "s3://bucket/job"}) == 1
        assert "the storage cannot be reached" in capsys.readouterr().err.splitlines()[-1]
