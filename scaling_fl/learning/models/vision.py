"""Classifiers of images by nickname, Hugging Face id or folder, and what they want to see."""

from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, ViTConfig
from transformers import ViTForImageClassification as TinyClassifier
from transformers.image_processing_base import ImageProcessingMixin

from scaling_fl.core.errors import UserError
from scaling_fl.core.outlines import outline_of
from scaling_fl.core.seeding import derive
from scaling_fl.learning.models.loading import from_hub, load_weights
from scaling_fl.learning.models.outline import outline_image_classifier
from scaling_fl.learning.models.probe import check_answers

_TINY_SIZE, _USUAL_SIZE = 32, 224
_HALF = (0.5, 0.5, 0.5)


class Looks(NamedTuple):
    """What images a model wants: squares of ``size`` pixels, less ``mean``, over ``std``."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(self, images: Tensor) -> Tensor:
        """Normalise images (n x 3 x size x size, from 0 to 1)."""
        mean, std = (images.new_tensor(each).view(3, 1, 1) for each in (self.mean, self.std))
        return (images - mean) / std


def load_looks(name: str, cache_dir: Path, size: int | None) -> Looks:
    """Read what the image processor of a model wants; ``size`` overrides its size.

    Raises:
        UserError: there is no such model, or it has no image processor.
    """
    if name == "tiny":
        return Looks(size or _TINY_SIZE, _HALF, _HALF)
    if file := outline_of(name):
        return Looks(size or _own_size(AutoConfig.from_pretrained(str(file))), _HALF, _HALF)
    found, _ = from_hub(ImageProcessingMixin.get_image_processor_dict, name, cache_dir)
    mean, std = (tuple(found.get(f"image_{what}") or ()) for what in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3:
        raise UserError(
            f"model={name} must come with an image processor (preprocessor_config.json) that has "
            "image_mean and image_std of three colours, and does not; save one beside it."
        )
    return Looks(size or _size_of(found), mean, std)


def _size_of(processor: dict[str, Any]) -> int:
    """Read the side of a square, which processors have written in several ways."""
    is_cut = processor.get("do_center_crop") and processor.get("crop_size")
    size = processor["crop_size"] if is_cut else processor.get("size", _USUAL_SIZE)
    return int(next(iter(size.values())) if isinstance(size, dict) else size)


def _own_size(config: Any) -> int:
    size = getattr(config, "image_size", None) or _USUAL_SIZE
    return int(size if isinstance(size, int) else min(size))


def load_image_classifier(
    name: str, *, num_labels: int, looks: Looks, seed: int, cache_dir: Path
) -> nn.Module:
    """Load a pre-trained encoder of images with a classification head, in fp32.

    A new head depends on ``seed`` alone. The statistics of BatchNorm stay those that the model
    comes with, in training, too: they are no parameters, so that no update would carry them.

    Raises:
        UserError: the model cannot be loaded, or cannot classify an image of that size by itself.
    """
    torch.manual_seed(derive(seed, "model"))
    if name == "tiny":
        return TinyClassifier(_tiny_config(looks.size, num_labels))
    if file := outline_of(name):
        return outline_image_classifier(file, num_labels=num_labels)
    config = from_hub(AutoConfig.from_pretrained, name, cache_dir, num_labels=num_labels)
    model = load_weights(AutoModelForImageClassification, name, cache_dir, config)
    _freeze_statistics(model)
    two = torch.linspace(-1, 1, 6 * looks.size**2).view(2, 3, looks.size, looks.size)
    inputs = model_inputs(model, two)
    check_answers(model, inputs, name=name, num_labels=num_labels, what="an image")
    return model


def model_inputs(model: Any, images: Tensor) -> dict[str, Any]:
    """Name the inputs of a model; some models must be told of images of another size."""
    inputs: dict[str, Any] = {"pixel_values": images}
    if needs_telling(model, images.shape[-1]):
        inputs["interpolate_pos_encoding"] = True
    return inputs


def needs_telling(model: Any, size: int) -> bool:
    """Say whether a model must be told that its images have another size than its positions."""
    is_asked = "interpolate_pos_encoding" in signature(model.forward).parameters
    return is_asked and _own_size(model.config) != size


class StillBatchNorm(nn.BatchNorm2d):
    """BatchNorm by the statistics that it comes with, whose scale and shift are still trained."""

    def train(self, mode: bool = True) -> "StillBatchNorm":
        return super().train(False)


def _freeze_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = StillBatchNorm
            module.eval()


def _tiny_config(size: int, num_labels: int) -> ViTConfig:
    config = ViTConfig(
        image_size=size,
        patch_size=4,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    config.num_labels = num_labels
    return config
