"""Models that answer questions about pages, VT5 and UDOP, by Hugging Face id or local folder."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import T5Config, UdopConfig, UdopForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.udop.modeling_udop import BaseModelOutputWithAttentionMask

from scaling_fl.core.errors import UserError
from scaling_fl.core.outlines import outline_of
from scaling_fl.core.seeding import derive
from scaling_fl.learning.models.loading import (
    check_vocabulary,
    fast_tokenizer,
    from_hub,
    tiny_tokenizer,
)
from scaling_fl.learning.models.outline import META
from scaling_fl.learning.models.vision import Looks
from scaling_fl.learning.models.vt5 import HEADS, VT5, dit_config
from scaling_fl.learning.models.vt5_files import load_vt5, read_config

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in thousandths of a page."""
_HALF = (0.5, 0.5, 0.5)
_UDOP = "udop"


class Prompt(NamedTuple):
    """How a kind of model is asked: what stands before the words of the page, and which boxes."""

    template: str
    """With a place for the question; the words of the page follow."""
    box: Box
    """Of each token of the prompt."""
    end_box: Box
    """Of the token that ends a text."""
    has_end: bool
    """Whether that token stands between prompt and page, too."""


_OF_VT5 = Prompt("question: {}  context: ", (0, 0, 1000, 1000), (0, 0, 0, 0), has_end=False)
_OF_UDOP = Prompt("Question answering. {}", (0, 0, 0, 0), (1000, 1000, 1000, 1000), has_end=True)


class PageModel(NamedTuple):
    """What a model is, by its config.json, before its weights are loaded."""

    config: Any
    """A T5Config of a VT5, or a UdopConfig."""
    looks: Looks
    prompt: Prompt
    heads: tuple[str, ...]
    """Modules that adapters leave to be trained whole."""


def load_document_tokenizer(name: str, cache_dir: Path) -> Any:
    """Load the fast tokenizer of a model; its token for the end ends texts and answers.

    Raises:
        UserError: there is no tokenizer of that name, or it cannot be used.
    """
    tokenizer = _tiny_tokenizer() if _is_made_up(name) else fast_tokenizer(name, cache_dir)
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer of model={name} must have a token for the end of a text, and has none; "
            "set its eos_token and save it again."
        )
    return tokenizer


def load_kind(name: str, tokenizer: Any, cache_dir: Path) -> PageModel:
    """Read what a model is.

    Raises:
        UserError: it is neither a VT5 nor a UDOP.
    """
    if name == "tiny":
        return _vt5(_tiny_config(tokenizer))
    if file := outline_of(name):
        content = json.loads(file.read_text(encoding="utf-8"))
    else:
        content = read_config(name, cache_dir)
    if content.get("model_type") == _UDOP:
        config = UdopConfig.from_dict(content)
        return PageModel(config, _looks(config), _OF_UDOP, ())
    if not {"visual_module_config", "image_model"} & content.keys():
        raise UserError(
            "model must be a VT5 (a T5 whose config.json has visual_module_config or image_model) "
            f"or a UDOP to answer questions about pages, got {name} of type "
            f"{content.get('model_type')}; choose rubentito/vt5-base-spdocvqa or "
            "microsoft/udop-large."
        )
    return _vt5(T5Config.from_dict(content))


def _vt5(config: T5Config) -> PageModel:
    return PageModel(config, _looks(dit_config(getattr(config, "image_model", {}))), _OF_VT5, HEADS)


def _looks(config: Any) -> Looks:
    return Looks(int(config.image_size), _HALF, _HALF)


def load_document_model(
    name: str, kind: PageModel, *, seed: int, tokenizer: Any, cache_dir: Path
) -> nn.Module:
    """Load a model in fp32, with every tensor; those of a tiny one depend on ``seed`` alone.

    Raises:
        UserError: it cannot be loaded, lacks a tensor, or does not fit its tokenizer.
    """
    make = UdopForConditionalGeneration if kind.config.model_type == _UDOP else VT5
    if outline_of(name):
        with META:
            return make(kind.config)
    check_vocabulary(name, kind.config.vocab_size, tokenizer)
    if name == "tiny":
        torch.manual_seed(derive(seed, "model"))
        return make(kind.config).eval()
    if make is VT5:
        return load_vt5(name, cache_dir, kind.config)
    return _load_udop(name, cache_dir)


def _load_udop(name: str, cache_dir: Path) -> nn.Module:
    model, loaded = from_hub(
        UdopForConditionalGeneration.from_pretrained,
        name,
        cache_dir,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
    )
    lacking = sorted({*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])})
    if lacking:
        raise UserError(
            f"model={name} must hold all weights in the shapes of its config.json, and lacks "
            f"{len(lacking)}, such as {lacking[0]}; save the model again."
        )
    return model  # type: ignore[no-any-return]


def read_page(
    model: Any, ids: Tensor, boxes: Tensor, mask: Tensor, pixel_values: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what the encoder makes of words and page, and the mask of it.

    ``ids`` and ``mask`` are (examples, words), ``boxes`` (examples, words, 4) from 0 to 1000, all
    int64; ``pixel_values`` (examples, 3, side, side).
    """
    if isinstance(model, VT5):
        return model.encode(ids, boxes, mask, pixel_values)
    found = model.encoder(
        input_ids=ids, bbox=boxes / 1000, attention_mask=mask, pixel_values=pixel_values
    )
    return found.last_hidden_state, found.attention_mask


def answer_logits(model: Any, page: tuple[Tensor, Tensor], ids: Tensor, **options: Any) -> Any:
    """Let the decoder look at a page after ``ids`` (examples, tokens), which begin with a start."""
    hidden, mask = page
    if isinstance(model, VT5):
        return model.language_backbone(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            attention_mask=mask,
            decoder_input_ids=ids,
            **options,
        )
    outputs = BaseModelOutputWithAttentionMask(last_hidden_state=hidden, attention_mask=mask)
    return model(encoder_outputs=outputs, decoder_input_ids=ids, **options)


def start_token(model: Any) -> int:
    """Return the token that answers begin with."""
    found = getattr(model.config, "decoder_start_token_id", None)
    return int(model.config.pad_token_id if found is None else found)


def write_answers(
    model: nn.Module, page: tuple[Tensor, Tensor], *, end: int, most: int
) -> list[list[int]]:
    """Have a model answer, always by the likeliest token, in at most ``most`` of them.

    What its ``generation_config`` says has no effect. The token ``end`` is left out.
    """
    ids = torch.full((len(page[0]), 1), start_token(model), device=page[0].device)
    is_done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    written: list[Tensor] = []
    cache = None
    while len(written) < most and not is_done.all():
        output = answer_logits(model, page, ids, past_key_values=cache, use_cache=True)
        token, cache = output.logits[:, -1].argmax(-1), output.past_key_values
        is_done = is_done | (token == end)
        written.append(torch.where(is_done, -1, token))
        ids = token[:, None]
    rows = torch.stack(written, dim=1).tolist() if written else []
    return [[token for token in row if token >= 0] for row in rows]


def _is_made_up(name: str) -> bool:
    return name == "tiny" or outline_of(name) is not None


def _tiny_tokenizer() -> Any:
    """Make a tokenizer of bytes with an end and no beginning, as T5 has it."""
    tokenizer = tiny_tokenizer(pairs=False)
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.eos_token = "[SEP]"
    return tokenizer


def _tiny_config(tokenizer: Any) -> T5Config:
    image_model = {
        **{"image_size": 32, "patch_size": 16, "hidden_size": 32, "intermediate_size": 64},
        **{"num_hidden_layers": 1, "num_attention_heads": 2},
    }
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    tokens = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }
    return T5Config.from_dict({**sizes, **tokens, "image_model": image_model})
