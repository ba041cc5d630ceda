"""Composition of a worker's model: configuration -> the trainer, and what its vector means."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from scaling_fl.build.data import Data
from scaling_fl.config import Config
from scaling_fl.core.errors import UserError
from scaling_fl.core.exchange import Exchange
from scaling_fl.learning.cache import cache_folder
from scaling_fl.learning.models.adapters import Adapter, adapt, frozen_digest
from scaling_fl.learning.models.loading import load_classifier
from scaling_fl.learning.training.local import LocalTrainer


def load_trainer(
    config: Config, data: Data, device: torch.device, stage: Callable[[str], None]
) -> LocalTrainer:
    """Load the model onto the device, with its adapter, and give it its optimiser."""
    stage(f"loading model {config.model}")
    model = load_model(config, len(data.label_names), data.tokenizer)
    return LocalTrainer(
        model.to(device),
        optimiser=config.optimiser,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        prox_mu=config.prox_mu,
        autocast_dtype=torch.bfloat16 if config.precision == "bf16" else None,
    )


def load_model(config: Config, num_labels: int, tokenizer: Any) -> nn.Module:
    """Load the model as every worker starts with it: with its head and its adapter, on the CPU."""
    model = load_classifier(
        config.model,
        num_labels=num_labels,
        max_seq_len=config.max_seq_len,
        seed=config.seed,
        tokenizer=tokenizer,
        cache_dir=cache_folder(config.data.cache_dir),
    )
    if config.adapter.kind != "none":
        model = adapt(model, Adapter(**config.adapter.model_dump()), seed=config.seed)
    return model


def check_same_model(model: nn.Module, exchange: Exchange) -> str:
    """Return the hash of the frozen weights, which no vector carries from worker to worker.

    Raises:
        UserError: the workers' models differ.
    """
    digest = frozen_digest(model)
    if len({row["frozen"] for row in exchange.gather([{"frozen": digest}])}) > 1:
        raise UserError(
            "all machines must have the same weights of model, got different ones; compare the "
            "model's folder or revision on each of them."
        )
    return digest


def meaning(
    config: Config, trainer: LocalTrainer, data: Data, exchange: Exchange
) -> dict[str, Any]:
    """Collect what gives the vector its meaning, beyond the names and shapes of its layout.

    Raises:
        UserError: the workers' frozen weights differ.
    """
    found: dict[str, Any] = {
        "model": config.model,
        "task_name": config.task_name,
        "labels": data.label_names,
    }
    if config.adapter.kind != "none":
        found["frozen weights"] = check_same_model(trainer.model, exchange)
        found["adapter.alpha"] = config.adapter.alpha
        found["adapter.rslora"] = config.adapter.rslora
    return found
