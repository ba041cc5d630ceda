"""The cache of tokenised text gives what the tokenizer gives, and never what is damaged."""

import multiprocessing

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from scaling_fl.learning.text.labelled import DataError, Labelled
from scaling_fl.learning.text.tokenised import _key, tokenise

TEXTS = ["a b c", "b", "c c c c c c c c c c", "a z"]


def make_tokenizer(words="abc", special=True):
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[CLS]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A", special_tokens=[("[CLS]", 1)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]")


class Loader:
    def __init__(self, texts=TEXTS):
        self.calls = 0
        self.labelled = Labelled(list(texts), np.arange(len(texts), dtype=np.int64))

    def __call__(self):
        self.calls += 1
        return self.labelled


def run(load, cache_dir, *, depends_on=None, tokenizer=None, max_seq_len=6):
    return tokenise(
        load,
        depends_on=depends_on or {"source": "1"},
        tokenizer=tokenizer or make_tokenizer(),
        max_seq_len=max_seq_len,
        cache_dir=cache_dir,
    )


def test_examples_equal_what_the_tokenizer_gives_for_each_text(tmp_path):
    texts = TEXTS * 600  # more than one call's worth
    examples = run(Loader(texts), tmp_path)
    expected = make_tokenizer()(texts, truncation=True, max_length=6)["input_ids"]
    pieces = np.split(examples.token_ids, examples.offsets[1:-1])
    assert [piece.tolist() for piece in pieces] == expected
    assert examples.lengths.tolist() == [len(ids) for ids in expected]
    assert np.array_equal(examples.labels, np.arange(len(texts)))
    assert len(examples) == len(texts)


def test_the_arrays_are_views_of_the_file_in_the_documented_types(tmp_path):
    examples = run(Loader(), tmp_path)
    for array, dtype in (
        (examples.token_ids, np.int32),
        (examples.offsets, np.int64),
        (examples.labels, np.int64),
    ):
        assert array.dtype == dtype
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_the_cache_is_a_hugging_face_data_set(tmp_path):
    from datasets import load_from_disk

    examples = run(Loader(), tmp_path)
    [folder] = [entry for entry in (tmp_path / "tokenised").iterdir() if entry.is_dir()]
    assert load_from_disk(folder)[0]["token_ids"] == examples.token_ids.tolist()


def test_the_text_is_read_once_however_the_tokenizer_was_used_in_between(tmp_path):
    load, tokenizer = Loader(), make_tokenizer()
    first = run(load, tmp_path, tokenizer=tokenizer)
    tokenizer(["a"], truncation=True, max_length=3, padding="max_length")
    second = run(load, tmp_path, tokenizer=tokenizer)
    assert load.calls == 1
    assert first.key == second.key


@pytest.mark.parametrize(
    "changed",
    [
        {"depends_on": {"source": "2"}},
        {"max_seq_len": 7},
        {"tokenizer": make_tokenizer("acb")},
        {"tokenizer": make_tokenizer(special=False)},
    ],
)
def test_whatever_changes_the_tokens_changes_the_key(tmp_path, changed):
    assert run(Loader(), tmp_path).key != run(Loader(), tmp_path, **changed).key


def test_only_data_with_special_tokens_in_their_texts_have_another_key_than_before(tmp_path):
    tokenizer = make_tokenizer()
    before = _key({"source": "1"}, tokenizer, 6)
    assert run(Loader(["a b c", "a PAD"]), tmp_path / "1", tokenizer=tokenizer).key == before
    examples = run(Loader(["a b c", "a [pad] [PAD]"]), tmp_path / "2", tokenizer=tokenizer)
    assert examples.key != before
    assert run(Loader(["never read"]), tmp_path / "2", tokenizer=tokenizer).key == examples.key
    assert 0 not in examples.token_ids


def cut(file):
    file.write_bytes(file.read_bytes()[:-10])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [cut, flip, lambda file: file.unlink()])
@pytest.mark.parametrize("name", ["*.arrow", "manifest.json", "state.json"])
def test_a_damaged_cache_is_rebuilt(tmp_path, name, damage):
    load = Loader()
    before = run(load, tmp_path).token_ids.tolist()
    [file] = (tmp_path / "tokenised").glob(f"*/{name}")
    damage(file)
    assert run(load, tmp_path).token_ids.tolist() == before
    assert load.calls == 2


def tokenise_and_report(cache_dir, queue):
    load = Loader(TEXTS * 500)
    examples = run(load, cache_dir)
    queue.put((load.calls, int(examples.token_ids.sum())))


def test_one_process_tokenises_and_the_others_wait(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [
        context.Process(target=tokenise_and_report, args=(tmp_path, queue)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(calls for calls, _ in results) == [0, 1]
    assert len({total for _, total in results}) == 1


def test_a_text_without_any_token_is_refused(tmp_path):
    with pytest.raises(DataError, match="1 of 2 have none"):
        run(Loader(["a", ""]), tmp_path, tokenizer=make_tokenizer(special=False))


PAIRS = ["the raven", "ice ice ice ice ice ice ice", "", "misery"]


@pytest.mark.parametrize("max_seq_len", [7, 32])
@pytest.mark.parametrize("kind", ["segments", "no segments"])
def test_pairs_equal_what_the_tokenizer_gives_for_each_pair(tmp_path, kind, max_seq_len):
    tokenizer = make_pair_tokenizer()
    if kind == "segments":
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    texts = ["raven heart", "abyss abyss abyss abyss abyss", "cult", "dream [SEP] dream"]
    labelled = Labelled(texts, np.arange(4), pairs=PAIRS, owners=np.array([3, 1, -1, 0]))
    examples = run(lambda: labelled, tmp_path, tokenizer=tokenizer, max_seq_len=max_seq_len)
    expected = make_pair_tokenizer()(
        texts, PAIRS, truncation="longest_first", max_length=max_seq_len, padding=True,
        split_special_tokens=True, return_token_type_ids=True,
    )  # fmt: skip
    batch = examples.batch(np.arange(4)).tensors
    width = len(expected["input_ids"][0])
    assert batch["input_ids"][:, :width].tolist() == expected["input_ids"]
    assert batch["attention_mask"][:, :width].tolist() == expected["attention_mask"]
    assert ("token_type_ids" in batch) == (kind == "segments")
    if kind == "segments":
        assert batch["token_type_ids"][:, :width].tolist() == expected["token_type_ids"]
        assert 1 in batch["token_type_ids"]
    assert examples.owners.tolist() == [3, 1, -1, 0]


def make_pair_tokenizer():
    words = ["raven", "heart", "abyss", "cult", "dream", "ice", "misery", "the"]
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", sep_token="[SEP]", cls_token="[CLS]",
        unk_token="[UNK]",
    )  # fmt: skip
