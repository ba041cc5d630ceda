"""Causal language models and their tokenizers, by nickname, Hugging Face id or local folder."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from scaling_fl.core.errors import UserError
from scaling_fl.core.outlines import outline_of
from scaling_fl.core.seeding import derive
from scaling_fl.learning.models.loading import (
    check_length,
    check_vocabulary,
    fast_tokenizer,
    from_hub,
    tiny_tokenizer,
)
from scaling_fl.learning.models.outline import outline_causal
from scaling_fl.learning.models.quantised import loading_options, settle, stored_so
from scaling_fl.learning.options import Load

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_IN_FP32 = Load()


def load_causal_tokenizer(name: str, cache_dir: Path) -> Any:
    """Load the fast tokenizer of a causal language model; it pads on the right.

    Raises:
        UserError: there is none of that name, or it cannot be used.
    """
    # An outline has no text to read; what is counted of it needs some token for padding.
    if name == "tiny" or outline_of(name):
        return _tiny_tokenizer()
    # What is padded is masked and not learned, so that any token serves.
    tokenizer = fast_tokenizer(name, cache_dir)
    tokenizer.padding_side = "right"
    return tokenizer


def load_causal(
    name: str,
    *,
    max_seq_len: int,
    seed: int,
    tokenizer: Any,
    cache_dir: Path,
    packing: bool,
    load: Load = _IN_FP32,
) -> nn.Module:
    """Load a causal language model, in fp32 unless ``load`` says otherwise.

    Raises:
        UserError: the model cannot be loaded, has fewer positions than ``max_seq_len`` or, with
            ``packing``, lets the texts of a row see each other.
    """
    torch.manual_seed(derive(seed, "model"))
    model: Any
    if name == "tiny":
        config = _tiny_config(tokenizer)
        check_length(name, config.max_position_embeddings, max_seq_len)
        model = stored_so(AutoModelForCausalLM.from_config(config, dtype=torch.float32), load)
    elif file := outline_of(name):
        dtype = torch.bfloat16 if load.bits == 16 else torch.float32
        model = outline_causal(file, dtype=dtype)
        check_length(name, getattr(model.config, "max_position_embeddings", None), max_seq_len)
        return model  # type: ignore[no-any-return]
    else:
        config = from_hub(AutoConfig.from_pretrained, name, cache_dir)
        check_length(name, getattr(config, "max_position_embeddings", None), max_seq_len)
        model = _load_weights(name, cache_dir, load)
    check_vocabulary(name, model.get_input_embeddings().num_embeddings, tokenizer)
    model.config.use_cache = False  # training needs none, and packing is not seen beside one
    if packing:
        _check_packing(model, name)
    return model  # type: ignore[no-any-return]


def _load_weights(name: str, cache_dir: Path, load: Load) -> Any:
    model, loaded = from_hub(
        AutoModelForCausalLM.from_pretrained,
        name,
        cache_dir,
        use_safetensors=True,  # the other format is a pickle
        output_loading_info=True,
        **loading_options(load),
    )
    settle(model)
    lacking = sorted({*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])})
    if lacking:
        raise UserError(
            f"model={name} must hold all weights of a causal language model in the shapes of its "
            f"config.json, and lacks {len(lacking)}, such as {lacking[0]}; choose another model."
        )
    return model


def _check_packing(model: nn.Module, name: str) -> None:
    """Refuse a model whose second text in a row depends on the first one."""
    model.eval()
    ids = torch.arange(1, 9).reshape(1, 8)
    positions = torch.arange(4).repeat(1, 2)
    other = ids.clone()
    other[:, :4] += 1
    with torch.no_grad():
        first, second = (_last(model, each, positions) for each in (ids, other))
    if not torch.equal(first, second):
        raise UserError(
            f"packing must be False for model={name}, which lets the texts of a row see each other;"
            " drop packing."
        )


def _last(model: nn.Module, ids: Tensor, positions: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    return logits[:, 4:]


def _tiny_config(tokenizer: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


def _tiny_tokenizer() -> Any:
    """Make a tokenizer of bytes that writes conversations as ChatML."""
    tokenizer = tiny_tokenizer(pairs=False)
    tokenizer.backend_tokenizer.post_processor = None
    special = [AddedToken(each, special=True) for each in ("<|im_start|>", "<|im_end|>")]
    tokenizer.add_tokens(special, special_tokens=True)
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = CHATML
    return tokenizer
