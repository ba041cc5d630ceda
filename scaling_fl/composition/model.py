"""Configuration -> the trainer of a worker, with its model."""

from collections.abc import Callable

import torch
from torch import nn

from scaling_fl.composition.data import Data
from scaling_fl.config import Config
from scaling_fl.core.errors import UserError
from scaling_fl.learning.models.activations import recompute_activations
from scaling_fl.learning.models.adapters import Adapter, adapt, frozen_and_new
from scaling_fl.learning.models.outline import is_outline
from scaling_fl.learning.models.quantised import is_stored_in, placed
from scaling_fl.learning.task import Task
from scaling_fl.learning.training.local import LocalTrainer


def load_trainer(
    config: Config,
    data: Data,
    device: torch.device,
    *,
    note: Callable[[str], None],
    stage: Callable[[str], None],
) -> LocalTrainer:
    """Load the model with its adapter onto the device, and make its trainer."""
    stage(f"loading model {config.model}")
    model = load_model(config, data.task)
    if layers := ",".join(frozen_and_new(model)):
        note(
            f"model={config.model} comes without {layers}, drawn from the seed and not trained; "
            f"adapter.modules_to_save={layers} trains that as well"
        )
    return LocalTrainer(
        placed(model, device),
        data.task.loss,
        optimiser=config.optimiser,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        prox_mu=config.prox_mu,
        autocast_dtype=torch.bfloat16 if config.precision == "bf16" else None,
        batches_per_step=config.gradient_accumulation_steps,
    )


def load_model(config: Config, task: Task) -> nn.Module:
    """Load the model of the task with its adapter, as before round 1, onto the CPU.

    Raises:
        UserError: the model cannot be had, or not as the settings want it.
    """
    model = task.load_model()
    if not is_outline(model) and not is_stored_in(model, config.load.bits):
        raise UserError(
            f"load.bits must be 32 for task_name={config.task_name}, whose load_model does not "
            f"heed options.load, got {config.load.bits}; drop it."
        )
    if config.gradient_checkpointing:
        recompute_activations(model)
    return adapted(model, config, task)


def adapted(model: nn.Module, config: Config, task: Task) -> nn.Module:
    """Add the adapter of the settings, if any, to the model of the task."""
    if config.adapter.kind == "none":
        return model
    adapter = Adapter(**config.adapter.model_dump())
    return adapt(model, adapter, heads=task.heads(model), seed=config.seed)
