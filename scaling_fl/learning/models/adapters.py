"""Adapters: which parameters of a model are trained, and so what the vector is made of."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from scaling_fl.core.errors import UserError
from scaling_fl.core.seeding import derive
from scaling_fl.learning.models.loading import made_anew
from scaling_fl.learning.models.outline import META, is_outline
from scaling_fl.learning.models.quantised import stored_tensors

DEFAULT_TARGETS: dict[str, tuple[str, ...]] = {
    "albert": ("query", "value"),
    "distilbert": ("q_lin", "v_lin"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "udop": ("q", "v"),
    **dict.fromkeys(("vit", "deit", "beit", "swin", "dinov2"), ("q_proj", "v_proj")),
}
"""Layers that get an adapter, by model type, where PEFT names none or we deviate.

Queries and values, as in arXiv 2106.09685 and, for images, in arXiv 2406.05233. For GPT-2, whose
queries and values are one layer, all linear layers, as in arXiv 2406.05233. A type that neither
knows gets adapters in all of them.
"""
ALL_LINEAR = "all-linear"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What is trained: ``lora`` (arXiv 2106.09685), ``dora`` (2402.09353) or only the ``head``.

    ``targets`` and ``modules_to_save`` are names of modules or ends of their dotted names.
    ``freeze_a`` trains only B (FFA-LoRA, 2403.12313); ``rslora`` scales by alpha over the root of
    the rank (2312.03732).
    """

    kind: str
    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...] | None
    freeze_a: bool
    rslora: bool
    modules_to_save: tuple[str, ...]


def adapt(model: Any, adapter: Adapter, *, heads: Sequence[str], seed: int) -> nn.Module:
    """Freeze a model but for its adapter, its ``heads`` and ``modules_to_save``, trained whole.

    ``heads`` are names of modules. The adapter's first values depend on ``seed`` alone.

    Raises:
        UserError: a name fits no module of the model, or one with the weights of another one.
        UserError: the model has no layer to adapt.
    """
    named = _named(model, adapter.modules_to_save, "adapter.modules_to_save")
    saved = _outermost([*heads, *named])
    if adapter.kind == "head":
        if not saved:
            raise UserError(
                "adapter.modules_to_save must name what adapter.kind=head trains, because the task "
                "has no head, got none; name modules, or set adapter.kind=lora."
            )
        model.requires_grad_(False)
        for name in saved:
            model.get_submodule(name).requires_grad_(True)
        return model  # type: ignore[no-any-return]
    _check_untied(model, named)
    # The import takes seconds, so runs without an adapter do without it.
    from peft import LoraConfig, inject_adapter_in_model

    targets = _targets(model, adapter.targets)
    within = [target for target in targets if not any(target.startswith(f"{n}.") for n in saved)]
    if not within:
        raise UserError(
            "adapter.modules_to_save must leave a target to adapt outside of the modules that are "
            f"trained whole, got {', '.join(adapter.modules_to_save)}; name fewer of them."
        )
    torch.manual_seed(derive(seed, "adapter"))
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # any number serves
        lora_dropout=adapter.dropout,
        target_modules=within,
        modules_to_save=saved,
        use_rslora=adapter.rslora,
        use_dora=adapter.kind == "dora",
        fan_in_fan_out=not isinstance(model.get_submodule(within[0]), nn.Linear),
    )
    # The adapter of an outline has no values, either.
    with META if is_outline(model) else nullcontext():
        adapted: nn.Module = inject_adapter_in_model(config, model)
    for name, parameter in adapted.named_parameters():
        if adapter.freeze_a and ".lora_A." in name:
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # PEFT takes the type of a base in bf16
    return adapted


def frozen_and_new(model: nn.Module) -> list[str]:
    """Name the layers whose weights are neither trained nor held by what the model came from."""
    frozen = {
        name.replace(".base_layer.", ".")
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
    }
    return sorted({name.rpartition(".")[0] for name in frozen.intersection(made_anew(model))})


def frozen_digest(model: nn.Module) -> str:
    """Hash the weights that are not trained: a checkpoint needs them and does not hold them."""
    digest = xxhash.xxh3_128()
    for name, tensor in stored_tensors(model):
        if not tensor.requires_grad:
            digest.update(name.encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def _check_untied(model: nn.Module, names: Sequence[str]) -> None:
    """Refuse to train a copy of weights that another module shares: the two would differ then."""
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    for name in names:
        if any(uses[id(weight)] > 1 for weight in model.get_submodule(name).parameters()):
            raise UserError(
                "adapter.modules_to_save must name modules with weights of their own beside an "
                f"adapter, got {name}, whose weights another module has, too; leave it out."
            )


def _outermost(names: Sequence[str]) -> list[str]:
    """Leave out modules inside other modules of the list, which PEFT would wrap twice."""
    kept: list[str] = []
    for name in sorted(set(names), key=names.index):
        if not any(name.startswith(f"{other}.") for other in names):
            kept.append(name)
    return kept


def _targets(model: Any, wanted: tuple[str, ...] | None) -> list[str]:
    linear = _linear_layers(model)
    if not linear:
        raise UserError(
            "adapter.kind must be none or head for a model of type "
            f"{model.config.model_type}, whose encoder has no linear layers that PEFT can adapt; "
            "set one of them."
        )
    if wanted == (ALL_LINEAR,):
        return linear
    if wanted is None:
        usual = _usual_targets(model.config.model_type)
        return [name for name in linear if any(_fits(name, end) for end in usual)] or linear
    return _matching(linear, wanted, "adapter.targets")


def _usual_targets(model_type: str) -> Sequence[str]:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as OF_PEFT

    usual = DEFAULT_TARGETS.get(model_type) or OF_PEFT.get(model_type) or ()
    return () if isinstance(usual, str) else usual  # PEFT has a pattern for some multimodal types


def _linear_layers(model: Any) -> list[str]:
    # Some models, such as UDOP, have no part of the name that they give for the rest of a model.
    prefix = model.base_model_prefix if hasattr(model, model.base_model_prefix) else ""
    head = None if prefix else model.get_output_embeddings()
    return [
        name
        for name, module in model.get_submodule(prefix).named_modules(prefix=prefix)
        # GPT-2 has its linear layers as Conv1D, with the weight the other way round.
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        if module is not head
    ]


def _named(model: Any, wanted: Sequence[str], path: str) -> list[str]:
    with_weights = [
        name
        for name, module in model.named_modules()
        if name and next(module.parameters(), None) is not None
    ]
    return _matching(with_weights, wanted, path)


def _matching(names: Sequence[str], wanted: Sequence[str], path: str) -> list[str]:
    for end in wanted:
        if not any(_fits(name, end) for name in names):
            raise UserError(
                f"{path} must name modules of the model, got {end!r}, which fits none; choose "
                f"from {_ends(names)}."
            )
    return [name for name in names if any(_fits(name, end) for end in wanted)]


def _fits(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _ends(names: Sequence[str]) -> str:
    ends = {name.rpartition(".")[2] for name in names}
    return ", ".join(sorted(end for end in ends if not end.isdigit()))
