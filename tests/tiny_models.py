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
from scaling_fl.learning.options import TaskOptions
from scaling_fl.learning.task import Batch
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
_WIDE = {**_SHAPE, "intermediate_size": 32, "max_position_embeddings": 64}
_GROUPED = {**_WIDE, "num_key_value_heads": 2}
_RELATIVE = {**_WIDE, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", _WIDE),
    "distilbert": (
        "DistilBertConfig",
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64},
    ),
    "albert": ("AlbertConfig", {**_WIDE, "embedding_size": 8}),
    "roberta": ("RobertaConfig", _WIDE),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "llama": ("LlamaConfig", {**_GROUPED, "pad_token_id": None}),
}
"""By family: the class of its configuration and what makes it tiny."""

MORE_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert_mlm": ("BertConfig", _WIDE),  # those of masked-language training have no pooler
    "electra": ("ElectraConfig", {**_WIDE, "embedding_size": 8}),
    "deberta": ("DebertaConfig", _RELATIVE),
    "deberta-v2": (
        "DebertaV2Config",
        {
            **_RELATIVE,
            "position_buckets": 8,
            "position_biased_input": False,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
        },
    ),
    "modernbert": ("ModernBertConfig", _WIDE),
    "mpnet": ("MPNetConfig", _WIDE),
    "xlnet": (
        "XLNetConfig",
        # With smaller weights hardly anything would depend on the segments.
        {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32, "initializer_range": 0.3},
    ),
    "ibert": ("IBertConfig", _WIDE),
    "mistral": ("MistralConfig", _GROUPED),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", {**_GROUPED, "head_dim": 8}),
    "gemma": ("GemmaConfig", {**_GROUPED, "head_dim": 8}),
    "gemma2": ("Gemma2Config", {**_GROUPED, "head_dim": 8}),
    "gemma3_text": ("Gemma3TextConfig", {**_GROUPED, "head_dim": 8}),
    "t5": (
        "T5Config",
        {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
        | {"decoder_start_token_id": 0},
    ),
    "bart": (
        "BartConfig",
        {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
        | {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
        | {"max_position_embeddings": 64},
    ),
}
"""Those that only the table of all models needs (tests/integration/test_models.py)."""

DECODERS = ("gpt2", "llama", "mistral")
WITH_SEGMENTS = ("albert", "bert", "bert_mlm", "deberta", "deberta-v2", "electra", "xlnet")
"""Families whose tokenizers number the segments of a text, even if there is only one."""

_OF_BERT = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
_OF_ROBERTA = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_OF_DECODERS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_OF_QWEN = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "unk_token": "<unk>"}
_OF_GEMMA = {
    "pad_token": "<pad>",
    "eos_token": "<eos>",
    "bos_token": "<bos>",
    "unk_token": "<unk>",
}
_OF_XLNET = {"cls_token": "<cls>", "sep_token": "<sep>", "pad_token": "<pad>", "unk_token": "<unk>"}
_OF_T5 = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}

_TOKENS: dict[str, tuple[dict[str, str], str, str]] = {
    **dict.fromkeys(DECODERS, (_OF_DECODERS, "<s> $A", "right")),
    **dict.fromkeys(("roberta", "ibert", "bart", "mpnet"), (_OF_ROBERTA, "<s> $A </s>", "right")),
    **dict.fromkeys(("qwen2", "qwen3"), (_OF_QWEN, "$A", "right")),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), (_OF_GEMMA, "<bos> $A", "left")),
    "xlnet": (_OF_XLNET, "$A <sep> <cls>:2", "left"),
    "t5": (_OF_T5, "$A </s>", "right"),
}
"""By family, where it is not as BERT's: special tokens in the order of their ids (RoBERTa counts
positions from the id of its padding on, which is 1), where they stand, and the padding's side."""


def save_model(family: str, folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Save an encoder without a head, and a tokenizer beside it."""
    class_name, options = (FAMILIES | MORE_FAMILIES)[family]
    tokenizer = make_tokenizer(family)
    special = {
        name: getattr(tokenizer, name)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id")
        if getattr(tokenizer, name) is not None
    }
    options = {"vocab_size": len(tokenizer), **options, **special, **changes}
    torch.manual_seed(seed)
    config = getattr(transformers, class_name)(**options)
    parts = {"add_pooling_layer": False} if family == "bert_mlm" else {}
    transformers.AutoModel.from_config(config, **parts).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer(family: str = "bert") -> PreTrainedTokenizerFast:
    """Make a tokenizer of whole words; those of decoders have no token for padding."""
    names, template, side = _TOKENS.get(family, (_OF_BERT, "[CLS] $A [SEP]", "right"))
    vocabulary = {word: i for i, word in enumerate([*names.values(), *WORDS])}
    if family == "qwen2":  # transformers reads its tokenizer's file as byte pairs, whatever it says
        tokenizer = _of_bytes(list(names.values()))
    else:
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=names["unk_token"]))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if used := [token.split(":")[0] for token in template.split() if token != "$A"]:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(token, vocabulary[token]) for token in used]
        )
    segments = ["token_type_ids"] if family in WITH_SEGMENTS else []
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side=side,
        model_input_names=["input_ids", *segments, "attention_mask"],
        **names,
    )


def _of_bytes(special: list[str]) -> Tokenizer:
    symbols = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


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
