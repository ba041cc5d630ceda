"""Comments of many people: every author is a client; who tests the model never trains it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_process import QuickRun

from scaling_fl.commands.evaluate import evaluate
from scaling_fl.commands.evaluation_request import EvaluationRequest
from scaling_fl.composition.data import Data, load_data
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import Config, ConfigurationError, read_config
from scaling_fl.learning.task import Indices
from scaling_fl.learning.text.labelled import DataError
from scaling_fl.methods.partitioning import partition

AUTHORS = [f"u{number}" for number in range(10)]


@pytest.fixture
def comments(tmp_path: Path) -> Path:
    """Comments of which each author repeats a word of its own."""
    path = tmp_path / "comments.jsonl"
    rows = [
        {"author": author, "body": f"word{author} says {author} again {n}", "subreddit": "tea"}
        for n in range(6)
        for author in AUTHORS
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def settings(comments: Path, **data: Any) -> dict[str, Any]:
    return {
        "task_name": "reddit",
        "model": "tiny",
        "train_path": str(comments),
        "test_path": None,
        "max_seq_len": 64,
        "num_clients": None,
        "partition": {"kind": "column", "column": "author"},
        "data": {"test_share": 0.2, "test_of": "clients", "cache_dir": str(comments.parent)} | data,
    }


def loaded(config: Config) -> Data:
    return load_data(config, 8, lambda text: None)


def authors_in(data: Data, examples: Any) -> set[str]:
    """Decode examples and name the authors whose words they have."""
    tokenizer = data.task.tokenizer  # type: ignore[attr-defined]
    texts = [
        tokenizer.decode(examples.token_ids[begin:end], skip_special_tokens=True)
        for begin, end in zip(examples.offsets[:-1], examples.offsets[1:], strict=True)
    ]
    return {text.split()[2] for text in texts}


def test_who_tests_the_model_never_trains_it(comments: Path) -> None:
    data = loaded(read_config(settings(comments)))
    training, testing = (authors_in(data, each) for each in (data.train, data.test))
    assert (len(training), len(testing)) == (8, 2)
    assert training | testing == set(AUTHORS)
    assert data.client_names == sorted(training)
    assert [len(each) for each in data.partitions] == [6] * 8
    assert (len(data.train), len(data.test)) == (48, 12)


def test_another_seed_holds_other_people_out(comments: Path) -> None:
    found = {
        tuple(loaded(read_config(settings(comments) | {"data_seed": seed})).client_names or ())
        for seed in range(4)
    }
    assert len(found) > 1


def test_every_token_but_the_first_is_learned_and_the_end_too(comments: Path) -> None:
    data = loaded(read_config(settings(comments)))
    batch = data.train.batch(np.arange(3))
    ids, labels = batch.tensors["input_ids"], batch.tensors["labels"]
    learned = labels != -100
    assert torch.equal(ids[learned], labels[learned])
    assert learned[:, 1:].sum() == batch.tensors["attention_mask"][:, 1:].sum()
    last = batch.tensors["attention_mask"].sum(1) - 1
    end = data.task.tokenizer.eos_token_id  # type: ignore[attr-defined]
    assert (ids[torch.arange(3), last] == end).all()


@pytest.mark.parametrize("pooled", [0.0, 0.5, 1.0])
def test_pooled_rows_are_dealt_anew_and_sizes_stay(pooled: float) -> None:
    owners = np.repeat(np.arange(20), np.arange(11, 31))

    def deal(seed: int) -> list[Indices]:
        return partition(owners, kind="column", num_clients=20, seed=seed, pooled=pooled)

    found = deal(1)
    assert [len(each) for each in found] == list(range(11, 31))
    assert np.array_equal(np.sort(np.concatenate(found)), np.arange(len(owners)))
    own = sum(int((owners[each] == client).sum()) for client, each in enumerate(found))
    expected = (1 - pooled) + pooled / 20
    assert own / len(owners) == pytest.approx(expected, abs=0.05)
    assert all(map(np.array_equal, found, deal(1)))
    assert pooled == 0 or not all(map(np.array_equal, found, deal(2)))


@pytest.mark.slow
def test_a_run_learns_the_next_word_and_goes_on(comments: Path, tmp_path: Path) -> None:
    changes = settings(comments) | {"learning_rate": 0.01, "num_local_epochs": 2}
    changes["partition"] |= {"pooled": 0.5}
    whole = QuickRun(tmp_path / "whole", shared=tmp_path, **changes).start_here()
    cut = QuickRun(tmp_path / "cut", shared=tmp_path, **changes)
    cut.start_here(stop_after=1)
    cut = QuickRun(tmp_path / "cut", shared=tmp_path, **changes).start_here()
    assert cut.digest == whole.digest
    loss = whole.record.metrics["validation.loss"]["values"]
    assert loss[-1] < loss[0]
    assert 0 < whole.record.metrics["validation.token_accuracy"]["values"][-1] <= 1
    again = evaluate(EvaluationRequest(checkpoint=str(whole.checkpoints))).overall
    assert again["validation.loss"] == loss[-1]
    other = EvaluationRequest(checkpoint=str(whole.checkpoints), test_path=str(comments))
    assert evaluate(other).overall["validation.loss"] != loss[-1]


def test_a_table_of_labelled_texts_may_hold_people_out_too(tmp_path: Path) -> None:
    rows = [{"text": f"{w} {n}", "label": w, "who": f"c{n % 5}"} for n in range(30) for w in "ab"]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = {"text": "text", "label": "label", "cache_dir": str(tmp_path)}
    held = {"test_share": 0.4, "test_of": "clients"}
    changes = settings(path) | {"task_name": "table", "data": data | held}
    changes["partition"] = {"kind": "column", "column": "who"}
    task = make_task(read_config(changes))
    train, test = task.load_examples("train"), task.load_examples("test")
    assert (len(train), len(test)) == (36, 24)
    assert len(task.client_names()) == 3  # type: ignore[attr-defined]
    assert set(task.owners(train).tolist()) == {0, 1, 2}  # type: ignore[attr-defined]
    assert set(task.owners(test).tolist()) == {-1}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"partition": {"kind": "iid"}}, "data.test_of must be rows unless partition.kind is"),
        ({"data": {"test_of": "clients"}}, "data.test_of"),
        ({"per_class_metrics": True}, "per_class_metrics must be left alone for conversations"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    changes: dict[str, Any], said: str, comments: Path
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_config(settings(comments) | changes)


def test_too_few_people_are_refused(comments: Path) -> None:
    config = read_config(settings(comments, test_share=0.97))
    with pytest.raises(DataError, match=r"must leave a client to train, got 0\.97 of 10"):
        loaded(config)


def test_a_table_without_texts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"author": "a", "comment": "b"}\n{"author": "c", "comment": "d"}')
    with pytest.raises(DataError, match=r"a column of texts \(body, text\), and has author, comm"):
        loaded(read_config(settings(path)))
