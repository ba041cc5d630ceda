"""A run's trained model in this process, for a notebook or a program."""

from typing import Any

import torch

from scaling_fl.composition.own_models import model_of
from scaling_fl.composition.restored import restore, settings_of
from scaling_fl.composition.tasks import make_task
from scaling_fl.learning.models.export import detach_classifier, merge_adapter
from scaling_fl.runtime.tracking.places import open_saved


def load_model(place: str, client: int | None = None, node: str | None = None) -> Any:
    """Load the model of a checkpoint or of a run, with its adapter merged in, on the CPU.

    Where clients keep a part of the model, it is that of a ``client``, from the folder of the job
    on its ``node`` if the client was on another machine.

    Raises:
        UserError: there is no checkpoint, or the base model is not to be had.
        UserError: the client is not named where models differ, or named where they do not.
    """
    saved = open_saved(place, lambda text: None)
    vector = model_of(saved, client, saved.checkpoint.vector, node=node, option="client")
    config = settings_of(saved, {})
    labels = saved.fingerprint.get("labels")
    task, device = make_task(config, labels=labels), torch.device("cpu")
    trainer = restore(saved, config, task, device, in_fp32=True)
    trainer.vector.copy_(vector)
    model: Any = merge_adapter(trainer.model)
    if labels and hasattr(model, "config"):
        detach_classifier(model, labels)
    return model.eval()
