"""A trained model as others expect it: a Hugging Face classifier, or PEFT's adapter folder."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from scaling_fl.core.json_text import json_text
from scaling_fl.learning.models.adapters import frozen_and_new
from scaling_fl.learning.models.base import ADAPTER
from scaling_fl.learning.models.vision import Looks
from scaling_fl.learning.models.vt5 import VT5
from scaling_fl.learning.models.vt5_files import save_vt5

_BILINEAR = 2
"""Pillow's number of the way in which images are scaled."""
_PREFIX = "base_model.model."
"""Where PEFT's wrapper keeps the model, by which the weights in its files are named."""


def merge_adapter(model: nn.Module) -> nn.Module:
    """Add a model's adapter to the weights that it adapts, in place.

    A model without an adapter stays as it is. The result has the modules of the base model, with
    heads and saved modules as trained, and the same outputs up to fp32 rounding. LoRA gives
    W + scale * BA (arXiv 2106.09685, section 4.1), DoRA rescales the columns of that as well
    (arXiv 2402.09353, equation 5).
    """
    if hasattr(model, "peft_config"):
        _merge_layers(model, "")
        del model.peft_config
    return model


def _merge_layers(model: nn.Module, place: str) -> None:
    """Put plain modules where PEFT's are, at a place in the model and inside of it."""
    # The import takes seconds, so models without an adapter do without it.
    from peft.tuners.lora import LoraLayer
    from peft.utils.other import ModulesToSaveWrapper

    inside = model.get_submodule(place).named_modules(prefix=place)
    for name, module in list(inside):
        if isinstance(module, LoraLayer):
            layer: Any = module
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(name, module.modules_to_save[ADAPTER])


def detach_classifier(
    model: Any, label_names: Sequence[str], problem_type: str = "single_label_classification"
) -> None:
    """Give a classifier weights of its own, on the CPU, and the names of its labels."""
    model.config.id2label = dict(enumerate(label_names))
    model.config.label2id = {name: number for number, name in enumerate(label_names)}
    # The base may have been trained for another kind of problem, which decides how others score.
    model.config.problem_type = problem_type
    for parameter in model.parameters():
        # transformers would take views of one vector for weights that are tied to each other.
        parameter.data = parameter.detach().cpu().clone()


def save_classifier(
    model: Any, folder: Path, *, label_names: Sequence[str], tokenizer: Any
) -> None:
    """Write a classifier without an adapter, with names for its labels, for ``from_pretrained``.

    The folder then holds config.json, the weights as safetensors, and the tokenizer's files.
    """
    detach_classifier(model, label_names)
    disable_progress_bar()
    model.save_pretrained(folder)
    _save_tokenizer(tokenizer, folder)


def save_image_classifier(
    model: Any, folder: Path, *, label_names: Sequence[str], looks: Looks, problem_type: str
) -> None:
    """Write a classifier of images without an adapter for ``from_pretrained``.

    The folder then holds config.json, the weights as safetensors, and an image processor.
    """
    detach_classifier(model, label_names, problem_type)
    disable_progress_bar()
    model.save_pretrained(folder)
    save_looks(looks, folder)


def save_looks(looks: Looks, folder: Path) -> None:
    """Write an image processor that shows a model what it saw when it was evaluated."""
    sides = {"height": looks.size, "width": looks.size}
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": looks.size},
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": sides,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(looks.mean),
        "image_std": list(looks.std),
    }
    (folder / "preprocessor_config.json").write_text(json_text(processor), encoding="utf-8")


def save_adapter(
    model: Any,
    folder: Path,
    *,
    base_model: str,
    peft_type: str | None,
    card: str,
    tokenizer: Any = None,
    splits_special_tokens: bool = True,
) -> None:
    """Write a LoRA or DoRA adapter and all that its base model lacks, for ``PeftModel``.

    ``base_model`` is where others find the model that was adapted, ``peft_type`` is PEFT's type of
    its task, if it has one. The folder then holds adapter_config.json, adapter_model.safetensors,
    the files of a tokenizer, if one is given, and a README.md with the text of ``card``, which says
    how to load them.
    What the base model does not hold is no longer adapted in ``model`` afterwards, but merged.
    """
    from peft import get_peft_model_state_dict

    config = copy.copy(model.peft_config[ADAPTER])
    lacking = frozen_and_new(model)
    for name in lacking:
        _merge_layers(model, name)
    # Sorted, because a set's order differs by process.
    config.target_modules = sorted(set(config.target_modules) - set(lacking))
    config.modules_to_save = [*(config.modules_to_save or ()), *lacking]
    config.base_model_name_or_path = base_model
    config.task_type = peft_type
    config.inference_mode = True
    config.save_pretrained(folder)
    weights: dict[str, Tensor] = get_peft_model_state_dict(
        model, adapter_name=ADAPTER, save_embedding_layers=False
    )
    for name in lacking:
        layer = model.get_submodule(name)
        weights |= {f"{name}.{rest}": value for rest, value in layer.named_parameters()}
    plain = {f"{_PREFIX}{name}": value.detach().cpu().clone() for name, value in weights.items()}
    # transformers and PEFT expect this format to stand in the metadata of every file.
    save_file(plain, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    if tokenizer is not None:
        _save_tokenizer(tokenizer, folder, splits_special_tokens=splits_special_tokens)
    (folder / "README.md").write_text(card, encoding="utf-8")


def save_causal(model: Any, folder: Path, *, tokenizer: Any) -> None:
    """Write a language model without an adapter for ``from_pretrained``: as ``save_classifier``."""
    for parameter in model.parameters():
        parameter.data = parameter.detach().cpu().clone()
    disable_progress_bar()
    model.config.use_cache = True
    model.save_pretrained(folder)
    _save_tokenizer(tokenizer, folder, splits_special_tokens=False)


def save_document_model(model: Any, folder: Path, *, tokenizer: Any) -> None:
    """Write a model that answers questions about pages, without an adapter: as it was published.

    A VT5 is read back by ``vt5_files.load_vt5``, and the T5 in it by transformers; others are for
    ``from_pretrained``.
    """
    for parameter in model.parameters():
        parameter.data = parameter.detach().cpu().clone()
    disable_progress_bar()
    model.config.use_cache = True
    if isinstance(model, VT5):
        save_vt5(model, folder)
    else:
        model.save_pretrained(folder)
    _save_tokenizer(tokenizer, folder)


def _save_tokenizer(tokenizer: Any, folder: Path, *, splits_special_tokens: bool = True) -> None:
    for of_this_machine in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(of_this_machine, None)
    # Some classes have another side than the run's, and transformers saves only what was given.
    tokenizer.init_kwargs["padding_side"] = tokenizer.padding_side
    if splits_special_tokens:  # in training those of a text were letters, too
        tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = True
    tokenizer.save_pretrained(folder)
