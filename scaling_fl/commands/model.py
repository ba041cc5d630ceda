"""A run's trained model in this process, for a notebook or a program."""

from typing import Any

import torch

from scaling_fl.composition.restored import restore, settings_of
from scaling_fl.composition.tasks import make_task
from scaling_fl.learning.models.export import detach_classifier, merge_adapter
from scaling_fl.runtime.tracking.places import open_saved


def load_model(place: str) -> Any:
    """Load the model of a checkpoint or of a run, with its adapter merged in, on the CPU.

    Raises:
        UserError: there is no checkpoint, or the base model is not to be had.
    """
    saved = open_saved(place, lambda text: None)
    config = settings_of(saved, {})
    labels = saved.fingerprint.get("labels")
    trainer = restore(saved, config, make_task(config, labels=labels), torch.device("cpu"))
    model: Any = merge_adapter(trainer.model)
    if labels and hasattr(model, "config"):
        detach_classifier(model, labels)
    return model.eval()
