"""Classifiers of images of every family are trained, resumed, exported and loaded elsewhere.

Elsewhere is plain transformers, or PEFT, with the image processor of the folder.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_process import QuickRun, outcome
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.utils import logging as transformers_logging

from scaling_fl.commands import export
from tests.digits import digits, write_idx
from tests.image_models import IMAGE_FAMILIES, save_image_model

# peft 0.21.2 asks transformers 5.23 by a name that goes away in its version 6.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
NUM_TEST = 30


class TrainedOnImages:
    """Two rounds of a federation on two sites."""

    def __init__(self, family: str, folder: Path, kind: str, **data: Any) -> None:
        base = "tiny" if family == "tiny" else str(save_image_model(family, folder / "base"))
        idx = write_idx(folder / "idx", num_train=60, num_test=NUM_TEST)
        self.folder = folder
        self.changes: dict[str, Any] = {
            **{"model": base, "task_name": "fashion_mnist", "max_seq_len": 128, "shared": folder},
            **{"train_path": str(idx), "test_path": None, "num_rounds": 2, "site_ids": [0, 1]},
            "adapter": {"kind": kind, "dropout": 0.1} if kind == "lora" else {"kind": kind},
            "data": {"cache_dir": str(folder / "cache"), **data},
        }
        self.run = QuickRun(folder / "run", **self.changes).start_here()

    def check_resume(self) -> None:
        """Stop after a round, and go on with one worker in place of two."""
        QuickRun(self.folder / "stopped", **self.changes).start_here(stop_after=1)
        resumed = QuickRun(self.folder / "stopped", **self.changes | {"site_ids": [0]})
        assert outcome(resumed.start_here(), 2) == outcome(self.run, 2)

    def export(self, name: str, *, adapter: bool = False) -> Path:
        out = self.folder / name
        assert export.main({"checkpoints": [self.run.url], "out": out, "adapter": adapter}) == 0
        return out

    def check_answers(self, model: Any, processor: Any, **options: Any) -> None:
        """Check loss and accuracy against those of the run, on test images as files have them.

        Pillow rounds each pixel that it scales, so that logits differ a little.
        """
        images, labels = digits()
        shown = [Image.fromarray(image) for image in images[60 : 60 + NUM_TEST]]
        inputs = processor(images=shown, return_tensors="pt")
        model.eval()
        with torch.inference_mode():
            logits = model(**inputs, **options).logits
        expected = {name: values[-1] for name, (_, values) in self.run.results().items()}
        truth = torch.from_numpy(labels[60 : 60 + NUM_TEST])
        loss = torch.nn.functional.cross_entropy(logits, truth)
        assert float(loss) == pytest.approx(expected["validation.loss"], rel=1e-3)
        accuracy = (logits.argmax(-1) == truth).double().mean()
        assert float(accuracy) == pytest.approx(expected["validation.accuracy"], abs=1.01 / 30)


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers_logging.set_verbosity_error()


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_a_model_is_trained_whole(family: str, tmp_path: Path) -> None:
    trained = TrainedOnImages(family, tmp_path, "none")
    trained.check_resume()
    folder = trained.export("merged")
    model = AutoModelForImageClassification.from_pretrained(folder)
    assert model.config.id2label[9] == "Ankle boot"
    trained.check_answers(model, AutoImageProcessor.from_pretrained(folder))


@pytest.mark.parametrize("family", ["vit", "dinov2", "swin"])
def test_an_adapter_is_on_queries_and_values(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = TrainedOnImages(family, tmp_path, "lora")
    monkeypatch.chdir(trained.export("adapter", adapter=True))
    targets = json.loads(Path("adapter_config.json").read_text())["target_modules"]
    assert {target.rpartition(".")[2] for target in targets} == {"q_proj", "v_proj"}
    (code,) = re.findall("```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    loaded: dict[str, Any] = {}
    exec(code, loaded)
    trained.check_answers(loaded["model"], loaded["processor"])


def test_images_of_another_size_than_the_models_own(tmp_path: Path) -> None:
    trained = TrainedOnImages("vit", tmp_path, "head", image_size=48)
    folder = trained.export("merged")
    model = AutoModelForImageClassification.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    assert 48 in dict(processor.size).values()
    trained.check_answers(model, processor, interpolate_pos_encoding=True)


def test_the_statistics_of_batches_stay_those_of_the_model(tmp_path: Path) -> None:
    trained = TrainedOnImages("resnet", tmp_path, "none")
    folder = trained.export("merged")
    before, after = (
        AutoModelForImageClassification.from_pretrained(place)
        for place in (tmp_path / "base", folder)
    )
    buffers, trained_buffers = dict(before.named_buffers()), dict(after.named_buffers())
    assert any(name.endswith("running_mean") for name in buffers)
    for name, buffer in buffers.items():
        assert torch.equal(buffer, trained_buffers[name]), name
    scale = "resnet.embedder.embedder.normalization.weight"
    assert not torch.equal(before.get_parameter(scale), after.get_parameter(scale))


def test_an_adapter_needs_linear_layers(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"adapter\.kind must be none or head for a model of type"):
        TrainedOnImages("resnet", tmp_path, "lora")


def test_a_model_without_an_image_processor_is_refused(tmp_path: Path) -> None:
    trained = TrainedOnImages("tiny", tmp_path, "head")
    folder = save_image_model("vit", tmp_path / "bare")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(Exception, match=r"model must be one of .*preprocessor|image processor"):
        QuickRun(tmp_path / "b", **trained.changes | {"model": str(folder)}).start_here()
    np.testing.assert_equal(trained.run.record.last_round, 2)
