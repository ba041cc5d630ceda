"""Models that are known by their config.json alone: names and shapes, and no weights.

All parameters are on torch's device ``meta``, which holds no values.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)
from transformers.utils import logging as transformers_logging

from scaling_fl.core.errors import UserError

META = torch.device("meta")


def is_outline(model: nn.Module) -> bool:
    """Say whether a model has no values."""
    return any(parameter.is_meta for parameter in model.parameters())


def outline_classifier(file: Path, *, num_labels: int) -> nn.Module:
    """Make a classifier without weights from a config.json.

    Raises:
        UserError: transformers has no such classifier.
    """
    kind = AutoModelForSequenceClassification
    return _outline(kind, file, torch.float32, num_labels=num_labels)


def outline_image_classifier(file: Path, *, num_labels: int) -> nn.Module:
    """Make a classifier of images without weights from a config.json.

    Raises:
        UserError: transformers has no such classifier.
    """
    kind = AutoModelForImageClassification
    return _outline(kind, file, torch.float32, num_labels=num_labels)


def outline_causal(file: Path, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Make a causal language model without weights from a config.json; ``dtype`` is that of these.

    Raises:
        UserError: transformers has no such language model.
    """
    return _outline(AutoModelForCausalLM, file, dtype)


def _outline(kind: Any, file: Path, dtype: torch.dtype, **options: Any) -> nn.Module:
    transformers_logging.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(str(file), trust_remote_code=False, **options)
        config.pad_token_id = getattr(config, "pad_token_id", None) or 0
        with META:
            model: nn.Module = kind.from_config(config, dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n", 1)[0].rstrip(".")
        raise UserError(
            f"model must be the config.json of a model that transformers knows, got {file}, of "
            f"which none could be made ({reason}); check the file."
        ) from error
    return model
