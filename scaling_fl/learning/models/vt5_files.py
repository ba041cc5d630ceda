"""The files of a VT5: names and tensors as they were published, each of them accounted for."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5Config
from transformers.utils.hub import cached_file

from scaling_fl.core.errors import UserError
from scaling_fl.core.json_text import json_text
from scaling_fl.learning.models.loading import from_hub
from scaling_fl.learning.models.vt5 import VT5
from scaling_fl.learning.safe_pickle import load_tensors

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
_SHARED = "language_backbone.shared.weight"
_TIED = tuple(
    f"language_backbone.{name}.weight"
    for name in ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head")
)
_IMAGE_MODEL = "visual_embedding.image_model."
_PUBLISHED = (
    (r"^layers\.", "encoder.layer."),
    (r"attention\.q_proj\.", "attention.attention.query."),
    (r"attention\.k_proj\.", "attention.attention.key."),
    (r"attention\.v_proj\.", "attention.attention.value."),
    (r"attention\.o_proj\.", "attention.output.dense."),
    (r"mlp\.fc1\.", "intermediate.dense."),
    (r"mlp\.fc2\.", "output.dense."),
)
"""How transformers 4, which wrote the published weights, names what version 5 has in a BEiT."""


def published_name(name: str) -> str:
    """Return the name of a parameter in the published files."""
    if not name.startswith(_IMAGE_MODEL):
        return name
    inner = name.removeprefix(_IMAGE_MODEL)
    for pattern, replacement in _PUBLISHED:
        inner = re.sub(pattern, replacement, inner)
    return _IMAGE_MODEL + inner


def load_vt5(name: str, cache_dir: Path, config: T5Config) -> VT5:
    """Load a VT5 in fp32 from safetensors or, if there are none, the published file of torch.

    Raises:
        UserError: there is no such file, or its tensors are not exactly those of the model.
    """
    with torch.device("meta"):
        model = VT5(config)
    given = _read(name, cache_dir)
    _check_tied(name, given)
    wanted = {published_name(key): key for key, _ in model.named_parameters()}
    _check(name, given, {key: model.get_parameter(own).shape for key, own in wanted.items()})
    _assign(model, {own: given[key] for key, own in wanted.items()})
    return model


def save_vt5(model: VT5, folder: Path) -> None:
    """Write config.json and the weights by their published names, which ``load_vt5`` reads.

    ``T5ForConditionalGeneration.from_pretrained(folder, key_mapping={"^language_backbone.": ""})``
    reads the T5 in it.
    """
    tensors = {
        published_name(name): parameter.detach().cpu().clone().contiguous()
        for name, parameter in model.named_parameters()
    }
    content = {**model.config.to_dict(), "architectures": ["HF_VT5"]}
    (folder / "config.json").write_text(json_text(content, indent=1), encoding="utf-8")
    save_file(tensors, folder / SAFE, metadata={"format": "pt"})


def find_file(name: str, file: str, cache_dir: Path) -> Path | None:
    """Return a file of a model, which is a folder or on the hub; None if it has none such."""
    found = from_hub(_cached, name, cache_dir, file=file)
    return None if found is None else Path(found)


def read_config(name: str, cache_dir: Path) -> dict[str, Any]:
    """Read the config.json of a model.

    Raises:
        UserError: it has none.
    """
    file = find_file(name, "config.json", cache_dir)
    if file is None:
        raise UserError(f"model={name} must have a config.json, and has none; check the name.")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _cached(place: str, *, file: str, local_files_only: bool, **_: Any) -> str | None:
    found: str | None = cached_file(
        place,
        file,
        local_files_only=local_files_only,
        _raise_exceptions_for_missing_entries=False,
    )
    return found


def _read(name: str, cache_dir: Path) -> dict[str, Tensor]:
    if safe := find_file(name, SAFE, cache_dir):
        return load_file(safe)
    if pickled := find_file(name, PICKLED, cache_dir):
        return load_tensors(pickled)
    raise UserError(
        f"model={name} must have its weights in {SAFE} or {PICKLED}, and has neither; save them "
        "beside its config.json."
    )


def _check_tied(name: str, given: dict[str, Tensor]) -> None:
    """Drop the copies of the embeddings that files of torch have, if they are copies."""
    for tied in _TIED:
        copy = given.pop(tied, None)
        if copy is not None and not torch.equal(copy, given.get(_SHARED, copy)):
            raise UserError(
                f"model={name} must have the same embeddings in {tied} as in {_SHARED}, and has "
                "others; save it again from a T5 with tied embeddings."
            )


def _check(name: str, given: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> None:
    missing = sorted(wanted.keys() - given.keys())
    foreign = sorted(given.keys() - wanted.keys())
    others = sorted(k for k in wanted.keys() & given.keys() if given[k].shape != wanted[k])
    parts = [
        f"{len(keys)} {what}, such as {keys[0]}"
        for keys, what in (
            (missing, "missing"),
            (foreign, "unknown"),
            (others, "of another shape"),
        )
        if keys
    ]
    if parts:
        raise UserError(
            f"model={name} must hold the {len(wanted)} tensors of a VT5 of its config.json and no "
            f"others, and has {'; '.join(parts)}; give the whole model."
        )


def _assign(model: VT5, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors in the places of those without values, and keep what is tied together."""
    for name, tensor in tensors.items():
        place, _, leaf = name.rpartition(".")
        old = model.get_parameter(name)
        new = torch.nn.Parameter(tensor.float(), requires_grad=old.requires_grad)
        setattr(model.get_submodule(place), leaf, new)
    model.language_backbone.tie_weights()
    left = [n for n, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]
    assert not left, left
    model.eval()
