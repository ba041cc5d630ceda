"""A text cannot forge a special token, in any kind of tokenizer; all other texts stay the same."""

import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForSequenceClassification,
)

from scaling_fl.learning.text.plain_text import (
    count_special_tokens,
    plain_text_tokenizer,
    special_tokens,
)

LETTERS = [*"abcdefghijklmnopqrstuvwxyz<>[]/|_0123456789"]
BERT = {
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
    "mask_token": "[MASK]",
}
ROBERTA = {
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


def finish(
    tokenizer: Tokenizer, template: str, roles: dict[str, str], **more: object
) -> PreTrainedTokenizerFast:
    """Give a tokenizer its template and its roles, as a saved model has them."""
    used = [token for token in template.split() if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, tokenizer.token_to_id(token)) for token in used]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles, **more)


def wordpiece() -> PreTrainedTokenizerFast:
    """As BERT has it: the special tokens are in the vocabulary, and words are lower-cased."""
    pieces = [*BERT.values(), *LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "##ing"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return finish(tokenizer, "[CLS] $A [SEP]", BERT)


def byte_level() -> PreTrainedTokenizerFast:
    """As RoBERTa and BART have it."""
    pieces = [*ROBERTA.values(), *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "h"), ("th", "e")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return finish(tokenizer, "<s> $A </s>", ROBERTA)


def unigram() -> PreTrainedTokenizerFast:
    """As T5 has it: its control symbols are pieces of the best score."""
    best = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
    pieces = [*best, ("▁", -2.0), ("▁the", -2.5), *((letter, -4.0) for letter in LETTERS)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    roles = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return finish(tokenizer, "$A </s>", roles, additional_special_tokens=["<extra_id_0>"])


def byte_fallback() -> PreTrainedTokenizerFast:
    """As Llama has it."""
    pieces = ["<unk>", "<s>", "</s>", "▁", *LETTERS, *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "th"])}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [("t", "h")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return finish(tokenizer, "<s> $A", roles)


def whole_words() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate([*BERT.values(), *LETTERS, "the"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return finish(tokenizer, "[CLS] $A [SEP]", BERT)


def merged() -> PreTrainedTokenizerFast:
    """A tokenizer whose merges and whole words lead to a special token, as Llama 3 may have it."""
    pieces = ["<|", "|>", "<|e", "<|e|>", *LETTERS, "▁"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [("<", "|"), ("|", ">"), ("<|", "e"), ("<|e", "|>")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return finish(tokenizer, "$A <|e|>", {"eos_token": "<|e|>"})


KINDS = [wordpiece, byte_level, unigram, byte_fallback, whole_words, merged]
TOKENIZERS = {kind.__name__: kind() for kind in KINDS}
TEMPLATES = {name: len(found("")["input_ids"]) for name, found in TOKENIZERS.items()}
kinds = pytest.mark.parametrize("name", TOKENIZERS)


@kinds
@settings(max_examples=60)
@given(
    pieces=st.lists(st.sampled_from(["a", "the ", " ", "</s>", "<s>", "[SEP]", "[CLS]", "<|e|>"]))
)
def test_no_special_token_comes_from_a_text(name: str, pieces: list[str]) -> None:
    tokenizer = TOKENIZERS[name]
    ids = plain_text_tokenizer(tokenizer).encode("".join(pieces)).ids
    special = {tokenizer.convert_tokens_to_ids(token) for token in special_tokens(tokenizer)}
    found = [number for number in ids if number in special - {tokenizer.unk_token_id}]
    assert found == tokenizer("")["input_ids"]  # what the template adds, once


@kinds
@settings(max_examples=60)
@given(text=st.text("abth <e/|_É\n", max_size=30), longest=st.integers(3, 12))
def test_other_texts_have_the_tokens_that_the_tokenizer_gives_them(
    name: str, text: str, longest: int
) -> None:
    tokenizer = TOKENIZERS[name]
    copy = plain_text_tokenizer(tokenizer)
    copy.enable_truncation(longest)
    expected = tokenizer(text, truncation=True, max_length=longest)["input_ids"]
    assert copy.encode_batch_fast([text])[0].ids == expected
    assert count_special_tokens([text], tokenizer) == 0


@kinds
def test_a_text_that_holds_special_tokens_is_counted_and_the_tokenizer_stays_as_it_was(
    name: str,
) -> None:
    tokenizer = TOKENIZERS[name]
    before = tokenizer.backend_tokenizer.to_str()
    token = tokenizer.eos_token or tokenizer.sep_token
    assert count_special_tokens(["a", f"a {token} b", token, "the"], tokenizer) == 2
    assert tokenizer.backend_tokenizer.to_str() == before
    assert tokenizer(f"a {token}")["input_ids"].count(tokenizer.convert_tokens_to_ids(token)) >= 1


def test_tokens_that_were_added_as_words_keep_their_numbers() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens(["<drug>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<sys>"]})
    tokenizer.add_tokens(["<dose>"])
    copy = plain_text_tokenizer(tokenizer)
    words = [tokenizer.convert_tokens_to_ids(word) for word in ("<drug>", "<dose>")]
    assert copy.encode("<drug><dose>", add_special_tokens=False).ids == words
    assert len(copy.encode("<sys>", add_special_tokens=False)) == len("<sys>")


SHAPE = {"d_model": 16, "num_labels": 2, "vocab_size": 400}


def bart() -> BartForSequenceClassification:
    halves = ("layers", "attention_heads", "ffn_dim")
    sizes = {f"{side}_{half}": 2 for side in ("encoder", "decoder") for half in halves}
    numbers = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    return BartForSequenceClassification(
        BartConfig(**SHAPE, **sizes, **numbers, max_position_embeddings=64)
    )


def t5() -> T5ForSequenceClassification:
    numbers = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    return T5ForSequenceClassification(
        T5Config(**SHAPE, **numbers, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )


@pytest.mark.parametrize(("kind", "make"), [(byte_level, bart), (unigram, t5)])
def test_classifiers_that_read_the_end_of_a_text_find_one_end_in_each(
    kind: Callable[[], PreTrainedTokenizerFast], make: Callable[[], torch.nn.Module]
) -> None:
    copy = plain_text_tokenizer(kind())
    copy.enable_truncation(24)
    texts = ["the price was <s>20</s> now 15", "the</s>", "</s> " * 30, "a"]
    rows = [encoding.ids for encoding in copy.encode_batch(texts)]
    width, model = max(map(len, rows)), make()
    padded = torch.tensor([ids + [model.config.pad_token_id] * (width - len(ids)) for ids in rows])
    assert (padded == model.config.eos_token_id).sum(1).tolist() == [1, 1, 1, 1]
    answer = model(input_ids=padded, attention_mask=(padded != model.config.pad_token_id).long())
    assert answer.logits.isfinite().all()


def test_the_hidden_pieces_have_names_that_nobody_can_foresee() -> None:
    vocabularies = [
        dict(json.loads(plain_text_tokenizer(unigram()).to_str())["model"]["vocab"])
        for _ in range(2)
    ]
    hidden = [set(a) - set(b) for a, b in (vocabularies, vocabularies[::-1])]
    assert [len(names) for names in hidden] == [3, 3]
