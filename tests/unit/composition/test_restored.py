"""Saved states: found wherever they are, and put back only into the model they belong to."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from scaling_fl.commands.evaluate import main as evaluate
from scaling_fl.commands.export import main as merge
from scaling_fl.commands.export import mean_of
from scaling_fl.composition.model import load_model
from scaling_fl.composition.restored import (
    check_alike,
    evaluate_vector,
    restore,
    settings_of,
)
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import Config, ConfigurationError, read_config
from scaling_fl.core.errors import UserError
from scaling_fl.core.vector import flatten_parameters
from scaling_fl.learning.models.adapters import frozen_digest
from scaling_fl.learning.task import of_test
from scaling_fl.methods.wire.codecs import CODECS
from scaling_fl.methods.wire.payloads import decode, encode
from scaling_fl.runtime.record.checkpoints import CheckpointError, Checkpoints
from scaling_fl.runtime.storage import StorageError, open_storage
from scaling_fl.runtime.tracking.places import open_saved
from tests.integration.harness import settings
from tests.tiny_models import save_model

LABELS = ["EAP", "HPL", "MWS"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_config(folder: Path, **changes: Any) -> Config:
    return read_config(settings(folder, **changes))


def save(place: str, config: Config, rounds: tuple[int, ...] = (1, 2)) -> list[torch.Tensor]:
    """Save states of a job as its recorder does; each has other random values."""
    model = load_model(config, make_task(config))
    layout, vector = flatten_parameters(model)
    identity: dict[str, Any] = {"model": config.model, "task_name": "spooky_author"}
    identity["labels"] = LABELS
    if config.adapter.kind != "none":
        identity["frozen weights"] = frozen_digest(model)
    checkpoints = Checkpoints(open_storage(place), None, pytest.fail)
    vectors = []
    for number in rounds:
        noise = torch.randn(layout.size, generator=torch.Generator().manual_seed(number))
        vectors.append(vector + 0.1 * noise)
        checkpoints.save(
            round=number,
            vector=vectors[-1],
            layout=layout,
            optimiser={},
            digest=f"d{number}",
            previous_digest="",
            cohort=[0],
            config=config.model_dump(mode="json"),
            identity=identity,
            progress={"num_threads": 1},
        )
    return vectors


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job's folder of checkpoints with rounds 1 and 2 of the tiny model and a LoRA adapter."""
    save(str(tmp_path / "job"), make_config(tmp_path, adapter={"kind": "lora", "rank": 2}))
    return tmp_path / "job"


def write_run(folder: Path, info: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "info.json").write_text(json.dumps(info))
    return folder


def saved_in(*places: str) -> dict[str, Any]:
    return {"checkpoints": [{"round": 1, "path": f"{place}/round-000001"} for place in places]}


def test_a_checkpoint_is_found_by_every_name_it_has(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "runs" / "7", saved_in("/once/there", str(job)))
    monkeypatch.chdir(job / "round-000001")
    places = {
        f"{job}": 2,
        f"{job}/": 2,
        f"file://{job}": 2,
        f"{run}": 2,
        f"{job}/round-000001": 1,
        f"{job}/round-000001/": 1,
        ".": 1,
        "..": 2,
        "../round-000002": 2,
    }
    for place, number in places.items():
        saved = open_saved(place, pytest.fail)
        assert (saved.checkpoint.round, saved.where) == (number, f"{job}/round-00000{number}")


def test_an_address_of_a_store_is_as_good_as_a_folder(tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}/job"
    vectors = save(url, make_config(tmp_path))
    for place, number in ((url, 2), (f"{url}/", 2), (f"{url}/round-000001", 1)):
        saved = open_saved(place, pytest.fail)
        assert saved.where == f"{url}/round-00000{number}"
        assert torch.equal(saved.checkpoint.vector, vectors[number - 1])


def test_the_newest_that_is_whole_is_taken_and_a_torn_one_that_is_named_is_refused(
    job: Path,
) -> None:
    (job / "round-000002" / "state.safetensors").write_bytes(b"torn")
    notes: list[str] = []
    assert open_saved(str(job), notes.append).checkpoint.round == 1
    assert ["round-000002 is not whole" in note for note in notes] == [True]
    with pytest.raises(CheckpointError, match=r"round-000002 is not a whole checkpoint \(state"):
        open_saved(str(job / "round-000002"), pytest.fail)
    with pytest.raises(CheckpointError, match=r"round-000009 is not a whole .* is missing"):
        open_saved(str(job / "round-000009"), pytest.fail)
    shutil.rmtree(job / "round-000001")
    with pytest.raises(CheckpointError, match="holds no whole checkpoint"):
        open_saved(str(job), notes.append)


def test_a_place_without_checkpoints_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"CHECKPOINT must be a folder .* got nosuch; "):
        open_saved("nosuch", pytest.fail)
    with pytest.raises(CheckpointError, match="holds no whole checkpoint"):
        open_saved(str(tmp_path), pytest.fail)
    gone = write_run(tmp_path / "runs" / "1", saved_in("/nowhere/job"))
    with pytest.raises(UserError, match=r"had its checkpoints in /nowhere/job, which is not here"):
        open_saved(str(gone), pytest.fail)
    for number, info in enumerate([[], {"checkpoints": [1]}, {"checkpoints": None}], 2):
        foreign = write_run(tmp_path / "runs" / str(number), info)
        with pytest.raises(UserError, match="is not the record of a run of this project"):
            open_saved(str(foreign), pytest.fail)
    young = write_run(tmp_path / "runs" / "9", {"uid": "u"})
    with pytest.raises(UserError, match="has saved no checkpoint yet"):
        open_saved(str(young), pytest.fail)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_checkpoint_that_may_not_be_read_is_told(job: Path) -> None:
    (job / "round-000002" / "state.safetensors").chmod(0)
    with pytest.raises(StorageError, match="permission denied"):
        open_saved(str(job), pytest.fail)


def test_a_state_is_as_readable_as_other_files(job: Path) -> None:
    modes = {path.stat().st_mode for path in (job / "round-000001").iterdir()}
    assert len(modes) == 1


def test_settings_are_the_runs_but_for_changes_and_training(job: Path, tmp_path: Path) -> None:
    saved = open_saved(str(job), pytest.fail)
    found = settings_of(saved, {"max_seq_len": 9, "data": {"max_test_examples": 5}})
    run = make_config(tmp_path, adapter={"kind": "lora", "rank": 2})
    assert (found.model, found.adapter, found.seed) == (run.model, run.adapter, run.seed)
    assert (found.test_path, found.val_batch_size) == (run.test_path, run.val_batch_size)
    assert (found.max_seq_len, found.data.max_test_examples) == (9, 5)
    assert found.data.cache_dir is None  # that of the run is not on this machine
    (tmp_path / "cache").mkdir()
    assert settings_of(saved, {}).data.cache_dir == str(tmp_path / "cache")
    with pytest.raises(ConfigurationError, match="max_seq_len must be at least 3, got 2"):
        settings_of(saved, {"max_seq_len": 2})


def test_a_restored_model_holds_the_state_and_the_frozen_weights_of_its_base(job: Path) -> None:
    saved = open_saved(str(job), pytest.fail)
    config = settings_of(saved, {})
    trainer = restore(saved, config, make_task(config), CPU)
    assert torch.equal(trainer.vector, saved.checkpoint.vector)
    assert trainer.layout == saved.checkpoint.layout
    assert frozen_digest(trainer.model) == saved.fingerprint["frozen weights"]


@pytest.mark.parametrize("kind", ["lora", "head"])
def test_another_base_model_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    bases = [save_model("bert", tmp_path / f"base-{seed}", seed=seed) for seed in (1, 2)]
    config = make_config(tmp_path, model=str(bases[0]), adapter={"kind": kind})
    save(str(tmp_path / "job"), config)
    saved = open_saved(str(tmp_path / "job"), pytest.fail)
    shutil.copytree(bases[0], tmp_path / "moved")

    def restore_with(model: Path) -> None:
        found = settings_of(saved, {"model": str(model)})
        restore(saved, found, make_task(found), CPU)

    restore_with(tmp_path / "moved")
    with pytest.raises(UserError, match=r"a base model with other weights .* with --model\.$"):
        restore_with(bases[1])
    with pytest.raises(UserError, match=r"does not fit model=.*: parameter 0 was .*--model"):
        restore_with(save_model("roberta", tmp_path / "roberta"))
    for name in ("moved/config.json", "alone"):
        (tmp_path / "alone").mkdir(exist_ok=True)
        shutil.copy(bases[0] / "config.json", tmp_path / "alone")
        with pytest.raises(ConfigurationError, match="model must have weights"):
            restore_with(tmp_path / name)


def test_only_states_of_one_model_are_averaged(job: Path, tmp_path: Path) -> None:
    base = make_config(tmp_path)
    save(str(tmp_path / "whole"), base)
    save(str(tmp_path / "ranks"), make_config(tmp_path, adapter={"kind": "lora", "rank": 3}))
    lora, whole, ranks = (
        open_saved(str(path), pytest.fail) for path in (job, tmp_path / "whole", tmp_path / "ranks")
    )
    check_alike([lora, open_saved(str(job / "round-000001"), pytest.fail)])
    with pytest.raises(UserError, match=r"differ in the names or shapes of their parameters; "):
        check_alike([lora, lora, ranks])
    with pytest.raises(UserError, match=r"differ in frozen weights \(\w{32} and None\), the "):
        check_alike([lora, whole])


@pytest.mark.parametrize("codec", sorted(set(CODECS) - {"none"}))
def test_quantising_takes_every_checkpoint_and_then_their_mean_through_the_codec(
    codec: str,
) -> None:
    """CMU's code left the first checkpoint as it was."""

    def through(vector: torch.Tensor) -> torch.Tensor:
        return decode(encode(vector, codec=codec), size=len(vector))

    a, b = torch.randn(2, 200, generator=torch.Generator().manual_seed(1))
    mean = ((2 * through(a).double() + through(b).double()) / 3).float()
    found = mean_of([a, b], [2.0, 1.0], codec)
    assert torch.equal(found.vector, through(mean))
    assert found.payload_bytes == len(encode(a, codec=codec))
    assert not torch.equal(found.vector, through(((2 * a.double() + through(b)) / 3).float()))
    single = mean_of([a], [1.0], codec)
    assert torch.equal(single.vector, through(a))


def test_without_a_codec_one_checkpoint_is_itself() -> None:
    vector = torch.randn(50)
    assert torch.equal(mean_of([vector], [3.0], None).vector, vector)
    assert mean_of([vector], [3.0], None).payload_bytes is None


def test_evaluating_a_vector_does_not_depend_on_what_the_model_held(job: Path) -> None:
    saved = open_saved(str(job), pytest.fail)
    config = settings_of(saved, {"data": {"cache_dir": str(job.parent / "cache")}})
    task = make_task(config)
    examples = task.load_examples("test")
    trainer = restore(saved, config, task, CPU)

    def found(vector: torch.Tensor) -> dict[str, float]:
        return evaluate_vector(trainer, vector, [of_test(task, examples)], batch_size=16)

    first = found(saved.checkpoint.vector)
    assert found(torch.zeros_like(saved.checkpoint.vector)) != first
    assert found(saved.checkpoint.vector) == first


Misuse = Callable[[Path], dict[str, Any]]


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (lambda job: {"checkpoint": "nosuch"}, 1, "CHECKPOINT must be a folder that exists"),
        (lambda job: {"checkpoint": str(job.parent)}, 1, "holds no whole checkpoint"),
        (lambda job: {"checkpoint": "nosuch://bucket/job"}, 1, "could not open"),
        (lambda job: {"task_name": "agnews"}, 1, "must have the labels that .* (EAP, HPL, MWS)"),
        (lambda job: {"max_seq_len": 2}, 2, "max_seq_len must be at least 3"),
        (lambda job: {"max_seq_len": 9999}, 1, "max_seq_len must be at most 512"),
        (lambda job: {"test_path": "nosuch.csv"}, 2, "nosuch.csv: this file must exist"),
        (lambda job: {"model": "/nosuch"}, 1, "model must be a folder that exists"),
        (lambda job: {"device": "cuda"}, 1, "device=cuda needs a GPU"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(
    job: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: Misuse,
    code: int,
    sentence: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert evaluate({"checkpoint": str(job)} | options(job)) == code
    assert_one_sentence(capsys, sentence)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (lambda job: {"checkpoints": ["nosuch"]}, 1, "CHECKPOINT must be a folder that exists"),
        (lambda job: {"weights": [1.0, 2.0]}, 2, "--weights must have one number for each"),
        (lambda job: {"out": job}, 2, "--out must name a folder that does not exist yet"),
        (lambda job: {"out": job / "round-000001/config.json"}, 2, "--out must name a folder"),
        (lambda job: {"out": Path("/proc/nosuch/out")}, 1, "could not write /proc/nosuch/out"),
        (
            lambda job: {"checkpoints": [str(job.parent / "whole")], "adapter": True},
            2,
            "--adapter needs checkpoints of adapter.kind=lora or dora, got none",
        ),
        (
            lambda job: {"checkpoints": [str(job), str(job.parent / "whole")]},
            1,
            "checkpoints must be alike to be averaged",
        ),
    ],
)
def test_what_cannot_be_merged_is_one_sentence_and_leaves_nothing(
    job: Path, capsys: pytest.CaptureFixture[str], options: Misuse, code: int, sentence: str
) -> None:
    save(str(job.parent / "whole"), make_config(job.parent))
    before = sorted(job.parent.rglob("*"))
    given = {"checkpoints": [str(job)], "out": job.parent / "out", "zip": True}
    assert merge(given | options(job)) == code
    assert_one_sentence(capsys, sentence)
    assert sorted(job.parent.rglob("*")) == before


def assert_one_sentence(capsys: pytest.CaptureFixture[str], sentence: str) -> None:
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("Error: ") == 1
    assert "Traceback" not in said.err
    *_, last = said.err.splitlines()
    assert all(part in last for part in sentence.split(" .* "))


def test_a_folder_appears_as_a_whole_or_not_at_all(
    job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = job.parent / "models" / "out"
    out.parent.mkdir()
    monkeypatch.setattr(os, "replace", interrupted)
    assert merge({"checkpoints": [str(job)], "out": out, "zip": True}) == 130
    assert list(out.parent.iterdir()) == []
    monkeypatch.undo()
    out.mkdir()  # an empty folder is nothing to lose
    assert merge({"checkpoints": [str(job)], "out": out, "zip": True}) == 0
    assert {path.name for path in out.parent.iterdir()} == {"out", "out.zip"}
    assert "wrote" in capsys.readouterr().out
    modes = {path.stat().st_mode for path in out.iterdir()}
    assert len(modes) == 1
    assert merge({"checkpoints": [str(job)], "out": out}) == 2


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt
