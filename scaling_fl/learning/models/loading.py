"""Sequence classifiers and their tokenizers, by nickname, Hugging Face id or local folder."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils.logging import set_verbosity as set_hub_verbosity
from huggingface_hub.utils.tqdm import disable_progress_bars
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from scaling_fl.core.errors import UserError
from scaling_fl.core.outlines import outline_of
from scaling_fl.core.seeding import derive
from scaling_fl.core.waiting import told_when_slow
from scaling_fl.learning.models.dinov2 import dinov2_small_folder
from scaling_fl.learning.models.hub import hub_answers, is_fetched, not_fetched
from scaling_fl.learning.models.outline import outline_classifier
from scaling_fl.learning.models.packaged import minilm_folder
from scaling_fl.learning.models.probe import check_answers, text_inputs
from scaling_fl.learning.models.smollm2 import smollm2_folder

NICKNAMES = {
    "albert": "albert-base-v1",
    "bert": "bert-base-cased",
    "distilbert": "distilbert-base-cased",
}
"""The models of the paper (arXiv 2102.00875)."""
PACKAGED = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}
"""Models that come from a package index, and the ids under which the hub has the same weights."""
_FOLDERS = {
    "minilm": minilm_folder,
    "smollm2": smollm2_folder,
    "dinov2_small": dinov2_small_folder,
}


def load_tokenizer(name: str, cache_dir: Path, *, pairs: bool = False) -> Any:
    """Load the fast tokenizer of a model; for ``pairs`` it is one that tells two texts apart.

    Raises:
        UserError: there is no tokenizer of that name, or it cannot be used.
    """
    # An outline has no text to read; what is counted of it needs some tokens, whichever they are.
    if name == "tiny" or outline_of(name):
        return tiny_tokenizer(pairs=pairs)
    tokenizer = fast_tokenizer(name, cache_dir)
    tokenizer.padding_side = _padding_side(from_hub(AutoConfig.from_pretrained, name, cache_dir))
    return tokenizer


def fast_tokenizer(name: str, cache_dir: Path) -> Any:
    """Load the fast tokenizer of a model, with a token for padding.

    Raises:
        UserError: there is none of that name, or it cannot be used.
    """
    tokenizer = from_hub(AutoTokenizer.from_pretrained, name, cache_dir)
    # If the files are missing, transformers makes an empty tokenizer of the model's kind.
    if not getattr(tokenizer, "is_fast", False) or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise UserError(
            f"model={name} has no fast tokenizer; save one beside it or choose a model that has "
            "one."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise UserError(
            f"the tokenizer of model={name} must have a padding, end-of-text or unknown token, "
            "and has none; set its pad_token and save it again."
        )
    return tokenizer


def _padding_side(config: Any) -> str:
    """Say where a model has its padding: a head that reads the last position wants a token there.

    All other heads find the last token themselves, and positions are counted from the left.
    """
    return "left" if getattr(config, "summary_type", None) == "last" else "right"


def load_classifier(
    name: str, *, num_labels: int, max_seq_len: int, seed: int, tokenizer: Any, cache_dir: Path
) -> nn.Module:
    """Load a pre-trained encoder or decoder with a classification head, in fp32.

    A new head depends on ``seed`` alone, so that all clients begin with the same head. The head of
    a saved classifier is kept if it has ``num_labels`` outputs.

    Raises:
        UserError: the model cannot be loaded, does not fit its tokenizer, has fewer positions than
            ``max_seq_len``, or cannot classify a text by the text alone.
    """
    torch.manual_seed(derive(seed, "model"))
    if name == "tiny":
        tiny = _tiny_config(len(tokenizer), num_labels)
        check_length(name, tiny.max_position_embeddings, max_seq_len)
        return BertForSequenceClassification(tiny)
    if file := outline_of(name):
        outline: Any = outline_classifier(file, num_labels=num_labels)
        check_length(name, getattr(outline.config, "max_position_embeddings", None), max_seq_len)
        return outline  # type: ignore[no-any-return]
    config = from_hub(AutoConfig.from_pretrained, name, cache_dir, num_labels=num_labels)
    check_length(name, getattr(config, "max_position_embeddings", None), max_seq_len)
    check_vocabulary(name, getattr(config, "vocab_size", len(tokenizer)), tokenizer)
    config.pad_token_id = tokenizer.pad_token_id
    model = load_weights(AutoModelForSequenceClassification, name, cache_dir, config)
    for path, module in model.named_modules():
        # Models like RoBERTa count positions from the index after that of their padding.
        padding: Any = getattr(module, "padding_idx", None)
        if path.endswith("position_embeddings") and padding is not None:
            weight: Any = module.weight
            check_length(name, len(weight) - padding - 1, max_seq_len)
    inputs = text_inputs(tokenizer, name, max_seq_len)
    check_answers(model, inputs, name=name, num_labels=num_labels, what="a text")
    return model


def load_weights(kind: Any, name: str, cache_dir: Path, config: Any) -> nn.Module:
    """Load a classifier of a kind (an Auto class of transformers) with all weights of its encoder.

    Raises:
        UserError: it cannot be loaded, or lacks some of them.
    """
    # Otherwise transformers asks a service of the hub to convert weights to safetensors.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    model, loaded = from_hub(
        kind.from_pretrained,
        name,
        cache_dir,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,  # the other format is a pickle
        ignore_mismatched_sizes=True,  # a head for other labels is made anew
        output_loading_info=True,
    )
    fresh = {*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])}
    encoder = f"{model.base_model_prefix}."
    # Heads are always made anew, and many checkpoints come without a pooler.
    lacking = sorted(k for k in fresh if k.startswith(encoder) and "pooler" not in k)
    if lacking:
        parts = "encoder and its decoder" if ".decoder." in lacking[0] else "encoder"
        raise UserError(
            f"model={name} must hold all weights of its {parts} in the shapes of its config.json, "
            f"and lacks {len(lacking)}, such as {lacking[0]}; save the model again."
        )
    model.made_anew = tuple(sorted(fresh))
    return model  # type: ignore[no-any-return]


def made_anew(model: nn.Module) -> tuple[str, ...]:
    """Name the parameters that a loaded model has, and what it was loaded from does not."""
    return getattr(model, "made_anew", ())


def check_vocabulary(name: str, num_embeddings: int, tokenizer: Any) -> None:
    """Refuse a model that has no embedding for some tokens of its tokenizer."""
    if len(tokenizer) > num_embeddings:
        raise UserError(
            f"model={name} has embeddings for {num_embeddings} tokens and a tokenizer of "
            f"{len(tokenizer)}; save it again after resize_token_embeddings({len(tokenizer)})."
        )


def check_length(name: str, longest: int | None, max_seq_len: int) -> None:
    """Refuse texts that are longer than the longest that a model takes; None: there is no limit."""
    if longest is not None and 0 < longest < max_seq_len:  # XLNet says -1: there is no limit
        raise UserError(
            f"max_seq_len must be at most {longest}, the longest text that model={name} takes, "
            f"got {max_seq_len}; lower max_seq_len."
        )


def from_hub(load: Callable[..., Any], name: str, cache_dir: Path, **options: Any) -> Any:
    """Load quietly from the packaged copy, a local folder or the hub; fail with one sentence."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    set_hub_verbosity(logging.ERROR)
    disable_progress_bars()
    options["trust_remote_code"] = False  # unless it is set, transformers asks on standard input
    if name in _FOLDERS:
        return load(str(_FOLDERS[name](cache_dir)), **options)
    place = NICKNAMES.get(name, name)
    looks_local = place.startswith((".", "/", "~")) or place.count("/") > 1
    if looks_local and not os.path.isdir(os.path.expanduser(place)):
        raise UserError(f"model must be a folder that exists, got {name}; check the path.")
    place = os.path.expanduser(place)
    is_local = os.path.isdir(place)
    # A hub that never answers would be waited for with every file that a model may have.
    options["local_files_only"] = is_local or not hub_answers()
    try:
        with told_when_slow(f"model={name} to be loaded", after_seconds=30):
            return load(place, **options)
    except (OSError, ValueError, SafetensorError) as error:
        if not is_local and not hub_answers() and not is_fetched(place):
            raise not_fetched(name) from error
        reason = str(error).strip().split("\n", 1)[0].rstrip(".")
        raise UserError(
            f"model must be one of {', '.join([*NICKNAMES, *_FOLDERS, 'tiny'])}, a Hugging Face id "
            f"of such a model or a local folder, got {name}, which could not be loaded "
            f"({reason}); check the name and the network."
        ) from error


def _tiny_config(vocab_size: int, num_labels: int) -> BertConfig:
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        pad_token_id=0,
    )
    config.num_labels = num_labels
    return config


def tiny_tokenizer(*, pairs: bool) -> PreTrainedTokenizerFast:
    """Make a byte-level tokenizer, which needs no vocabulary file.

    Without ``pairs`` it is, to the last bit, the one that older jobs have in their digests.
    """
    special = ["[PAD]", "[CLS]", "[SEP]"]
    symbols = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    templates = {"single": "[CLS] $A [SEP]"}
    if pairs:
        templates["pair"] = "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(
        **templates, special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    segments = ["token_type_ids"] if pairs else []
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", *segments, "attention_mask"],
    )
