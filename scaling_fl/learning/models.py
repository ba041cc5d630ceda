"""Sequence classifiers and their tokenizers, by nickname, Hugging Face id or local folder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
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

from scaling_fl.core.seeding import derive
from scaling_fl.learning.packaged import minilm_folder

NICKNAMES = {
    "albert": "albert-base-v1",
    "bert": "bert-base-cased",
    "distilbert": "distilbert-base-cased",
}
"""The models of the paper (arXiv 2102.00875)."""


class ModelError(ValueError):
    """A model that cannot be had or cannot do the task; the text says what to do."""


def load_tokenizer(name: str, cache_dir: Path) -> Any:
    """Load the fast tokenizer of a model.

    Raises:
        ModelError: there is none under that name.
    """
    if name == "tiny":
        return _tiny_tokenizer()
    tokenizer = _from_hub(AutoTokenizer.from_pretrained, name, cache_dir)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"model={name} has no fast tokenizer; choose a model that has one.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_classifier(
    name: str, *, num_labels: int, max_seq_len: int, seed: int, tokenizer: Any, cache_dir: Path
) -> nn.Module:
    """Load a pre-trained encoder with a fresh classification head, in fp32.

    The head depends on ``seed`` alone, so all clients start from the same one.

    Raises:
        ModelError: the model cannot be had, or is too short for ``max_seq_len``.
    """
    torch.manual_seed(derive(seed, "model"))
    if name == "tiny":
        return BertForSequenceClassification(_tiny_config(len(tokenizer), num_labels))
    config = _from_hub(AutoConfig.from_pretrained, name, cache_dir, num_labels=num_labels)
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and max_seq_len > longest:
        raise ModelError(
            f"max_seq_len must be at most {longest}, the longest text that model={name} takes, "
            f"got {max_seq_len}; lower max_seq_len."
        )
    config.pad_token_id = tokenizer.pad_token_id
    load = AutoModelForSequenceClassification.from_pretrained
    model: nn.Module = _from_hub(load, name, cache_dir, config=config, dtype=torch.float32)
    return model


def _from_hub(load: Callable[..., Any], name: str, cache_dir: Path, **options: Any) -> Any:
    """Load from the packaged copy, a local folder or the hub, quietly, with one clear error."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if name == "minilm":
        return load(str(minilm_folder(cache_dir)), **options)
    place = NICKNAMES.get(name, name)
    looks_local = place.startswith((".", "/", "~")) or place.count("/") > 1
    if looks_local and not os.path.isdir(os.path.expanduser(place)):
        raise ModelError(f"model must be a folder that exists, got {name}; check the path.")
    try:
        return load(os.path.expanduser(place), **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelError(
            f"model must be one of {', '.join([*NICKNAMES, 'minilm', 'tiny'])}, a Hugging Face id "
            f"of a sequence classifier or a local folder, got {name}, which could not be loaded "
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


def _tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Make a byte-level tokenizer, which needs no vocabulary file."""
    special = ["[PAD]", "[CLS]", "[SEP]"]
    symbols = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
