"""Tiny classifiers of images of several families, saved as a hub or a user would have them."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

SIZE = 32
_PATCHES = {"image_size": SIZE, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2}
_WIDE = {**_PATCHES, "num_attention_heads": 2, "intermediate_size": 32}
IMAGE_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTConfig", {**_WIDE, "hidden_dropout_prob": 0.1}),
    "dinov2": ("Dinov2Config", _WIDE),
    "swin": (
        "SwinConfig",
        {
            **{"image_size": SIZE, "patch_size": 4, "embed_dim": 8, "depths": [1, 1]},
            **{"num_heads": [1, 2], "window_size": 4},
        },
    ),
    "resnet": (
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    ),
}
"""By family: the class of its configuration and what makes it tiny."""
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": SIZE, "width": SIZE},
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
}


def save_image_model(family: str, folder: Path) -> Path:
    """Write a model with random weights, the head of another task, and an image processor."""
    name, options = IMAGE_FAMILIES[family]
    config = getattr(transformers, name)(**options, num_labels=3)
    torch.manual_seed(1)
    model = transformers.AutoModelForImageClassification.from_config(config)
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)  # as if it had been trained
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder
