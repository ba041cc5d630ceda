"""Tiny models of several families with random weights, saved as a hub or a user would have them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from scaling_fl.learning.models.adapters import Adapter
from scaling_fl.learning.task import Batch, TaskOptions
from scaling_fl.learning.tasks.classification.family import Classification

WORDS = [
    "raven",
    "chamber",
    "heart",
    "abyss",
    "cult",
    "dream",
    "creature",
    "mountain",
    "misery",
    "ice",
]
_SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_WIDE = {**_SHAPE, "intermediate_size": 32}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", {**_WIDE, "max_position_embeddings": 64}),
    "distilbert": (
        "DistilBertConfig",
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64},
    ),
    "albert": ("AlbertConfig", {**_WIDE, "embedding_size": 8, "max_position_embeddings": 64}),
    "roberta": ("RobertaConfig", {**_WIDE, "max_position_embeddings": 64, "pad_token_id": 1}),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "llama": (
        "LlamaConfig",
        {**_WIDE, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": None},
    ),
}
"""By family: the class of its configuration and what makes it tiny."""

DECODERS = ("gpt2", "llama")


def save_model(family: str, folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Save an encoder without a head, and a tokenizer beside it."""
    class_name, options = FAMILIES[family]
    tokenizer = make_tokenizer(family)
    special = {
        name: getattr(tokenizer, name)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id")
        if getattr(tokenizer, name) is not None
    }
    options = {"vocab_size": len(tokenizer), **options, **special, **changes}
    torch.manual_seed(seed)
    config = getattr(transformers, class_name)(**options)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer(family: str = "bert") -> PreTrainedTokenizerFast:
    """Make a tokenizer of whole words; those of decoders have no token for padding."""
    if family in DECODERS:
        names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        template = "<s> $A"
    else:
        # RoBERTa counts positions from the id of its padding on, which is 1.
        names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
        names["sep_token"] = "[SEP]"
        template = "[CLS] $A [SEP]"
    vocabulary = {word: i for i, word in enumerate([*names.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=names["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    used = [token for token in template.split() if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, vocabulary[token]) for token in used]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def make_adapter(**changes: Any) -> Adapter:
    """Describe a small LoRA adapter, with some of its settings changed."""
    options: dict[str, Any] = {
        "kind": "lora",
        "rank": 4,
        "alpha": 8.0,
        "dropout": 0.0,
        "targets": None,
        "freeze_a": False,
        "rslora": False,
        "modules_to_save": (),
    }
    return Adapter(**options | changes)


def make_classification(
    model: str = "tiny", *, num_labels: int = 3, seed: int = 0, max_seq_len: int = 16
) -> Classification:
    """Make a task of classification with so many labels, whose corpus nobody reads."""
    labels: Any = SimpleNamespace(LABELS=tuple("abcdefghijklmnopqrst"[:num_labels]))
    options = TaskOptions(
        model=model,
        max_seq_len=max_seq_len,
        seed=seed,
        data_seed=0,
        cache_dir=Path("unused"),
        paths={},
        max_examples={},
        text=None,
    )
    return Classification("made up", labels, options)


def make_batch(input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Batch:
    """Make a batch of tokenised texts as a classifier is given it."""
    tensors = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
    return Batch(tensors, np.arange(len(labels)))
