"""What a user writes is found by its name, does its part, and counts by its source.

The examples that the documentation gives are those that are run here.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scaling_fl.composition import own
from scaling_fl.composition.clients import make_link
from scaling_fl.composition.merge import make_merge
from scaling_fl.composition.tasks import make_task, own_metrics
from scaling_fl.config import Config, read_config
from scaling_fl.config.merges import MERGES
from scaling_fl.conformance.cases import statistics_of
from scaling_fl.conformance.merge_laws import MERGE_LAWS
from scaling_fl.conformance.rounds import merged, some_updates
from scaling_fl.conformance.trial import judge
from scaling_fl.conformance.tried_merge import tried_merge
from scaling_fl.core.errors import UserError
from scaling_fl.core.vector import Layout
from scaling_fl.methods import partitioning
from scaling_fl.methods.wire import codecs
from scaling_fl.methods.wire.direction import Direction, Payload
from scaling_fl.methods.wire.payloads import PayloadError
from tests.own_things import EXAMPLES, OWN, write_messages
from tests.unit.config.settings import problems


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The caller's folder, with a module and with the data of its task."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_things", raising=False)
    (tmp_path / "own_things.py").write_text(EXAMPLES)
    write_messages(tmp_path / "messages.tsv", 4)
    return tmp_path


def own_config(**changes: Any) -> Config:
    return read_config({**OWN, **changes})


def test_each_kind_is_found_in_the_callers_folder_and_does_its_part(folder: Path) -> None:
    config = own_config()
    updates = some_updates(3, 1)
    expected = sum(one.vector.square() * one.share for one in updates)
    assert torch.allclose(merged(lambda: make_merge(config), updates), expected, atol=1e-6)

    task = make_task(config)
    assert task.meaning == {"labels": ["ham", "spam"]}
    assert len(task.load_examples("train")) == 4
    counts = torch.tensor([3, 1, 2, 2, 0, 0])
    assert task.metrics(counts, detailed=False)["balanced_accuracy"] == (0.75 + 0.5) / 2

    one_large = own.find_callable(config.partition_kind, "partition.kind")
    found = partitioning.partition(np.zeros(9), kind=one_large, num_clients=3, seed=1)
    assert [len(each) for each in found] == [5, 2, 2]
    assert sorted(np.concatenate(found)) == list(range(9))


def test_a_codec_of_ones_own_is_sent_counted_and_decoded(folder: Path) -> None:
    config = own_config(upload={"codec": "own_things:signs", "density": 0.5})
    link = make_link(config, config, Layout.of([("w", torch.nn.Parameter(torch.zeros(20)))]))
    vector = torch.randn(20, generator=torch.Generator().manual_seed(0))
    payload = link.up.send(vector, link.num_up(20, 1, 0))
    assert payload.num_bytes == len(bytes(payload)) == link.num_bytes(1)[1]
    arrived = payload.decode()
    sent = arrived != 0
    assert int(sent.sum()) == 10
    assert torch.equal(arrived[sent].sign(), vector[sent].sign())
    assert arrived[sent].abs().unique().numel() == 1
    assert isinstance(link.up.codec, codecs.Codec)
    again = Payload.from_bytes(bytes(payload), 20, link.up.codec)
    assert torch.equal(again.decode(), arrived)
    with pytest.raises(PayloadError, match="codec of a payload must be one of"):
        Payload.from_bytes(bytes(payload), 20)


def test_a_codec_of_ones_own_is_held_to_its_length_and_to_finite_values() -> None:
    plain = codecs.CODECS["none"]
    longer = codecs.Codec(plain._encode, plain._decode, lambda count: 2)
    with pytest.raises(ValueError, match="3 values must take 2 bytes by the codec's num_bytes"):
        Direction(codec=longer).send(torch.zeros(3), 3)
    wild = codecs.Codec(plain._encode, lambda raw, out: out.fill_(torch.inf), plain.num_bytes)
    with pytest.raises(PayloadError, match="not finite"):
        Direction(codec=wild.with_finite_values()).send(torch.zeros(3), 3).decode()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([[0, 1], [2]], "got 2 clients of [2, 1] examples"),
        ([[0, 1], [2, 3], []], "got 3 clients of [2, 2, 0] examples"),
        ([[0, 1], [2], [2]], "got 4 indices of 3 examples"),
        ([[0, 1], [2], [4]], "got 4 indices of 4 examples"),
    ],
)
def test_a_partitioner_that_loses_or_repeats_examples_is_told(found: Any, said: str) -> None:
    with pytest.raises(ValueError, match="each of 4 examples to one of 3 clients") as error:
        partitioning.partition(np.zeros(4), kind=lambda *_: found, num_clients=3, seed=0)
    assert said in str(error.value)


def test_all_that_cannot_be_found_is_told_at_once_and_nothing_is_imported(folder: Path) -> None:
    (folder / "own_things.py").write_text("raise SystemExit('imported')\ndef messages(): ...")
    wrong = {**OWN, "merge": {"method": "no_such_module:merge"}, "metrics": ["math:nosuch"]}
    found = problems(wrong)
    for path, reason in {
        "merge.method": "there is no module no_such_module in",
        "partition.kind": "own_things.py has no one_large",
        "upload.codec": "own_things.py has no signs",
    }.items():
        rule = f"{path} must name what a module has, as my_module:name, got"
        assert any(line.startswith(rule) and reason in line for line in found), (path, found)
    assert len(found) == 3, "what is compiled, as math is, shows when it is imported"
    with pytest.raises(
        UserError, match=r"metrics must name what a module has, .* got 'math:nosuch'"
    ):
        own_metrics(Config(metrics=("math:nosuch",)))
    for setting in ("task_name", "metrics"):
        name = "a b:c"
        value = [name] if setting == "metrics" else name
        assert any("my_module:my_" in line for line in problems({**OWN, setting: value}))


@pytest.mark.parametrize(
    ("setting", "name", "said"),
    [
        ("upload", {"codec": "own_things:LABELS"}, "upload.codec must name a Codec .* a tuple"),
        ("task_name", "own_things:LABELS", "task_name must name a function, .* a tuple"),
    ],
)
def test_what_is_of_another_kind_is_told(folder: Path, setting: str, name: Any, said: str) -> None:
    config = own_config(**{setting: name})
    layout = Layout.of([("w", torch.nn.Parameter(torch.zeros(20)))])
    with pytest.raises(UserError, match=said):
        make_task(config), make_link(config, config, layout)


def test_clients_send_what_a_merge_of_ones_own_names(folder: Path) -> None:
    tried = tried_merge("own_things:by_largest_loss")
    assert {name: each.size for name, each in tried.payloads.items()} == {"largest_loss": 1}
    losses = [0.0, 1.0, 3.0]
    updates = [
        replace(one, share=1 / 3, extras={"largest_loss": torch.tensor([loss])})
        for one, loss in zip(some_updates(3, 1), losses, strict=True)
    ]
    weights = [1 / (1 + loss) for loss in losses]
    expected = sum(one.vector * weight for one, weight in zip(updates, weights, strict=True))
    assert torch.allclose(merged(tried.make, updates), expected / sum(weights), atol=1e-6)
    breaks = {"gauge": "A and B apart", "zero client": "its loss counts"}
    verdicts = judge(MERGE_LAWS, replace(tried, breaks=breaks), num_cases=10, shrink=False)
    assert [one.law for one in verdicts if not one.is_good] == []


@pytest.mark.parametrize("payloads", ["['loss']", "{'loss': 'own_things:loss'}"])
def test_payloads_of_another_kind_are_told(folder: Path, payloads: str) -> None:
    with (folder / "own_things.py").open("a") as file:
        file.write(f"\nmean_of_squares.payloads = {payloads}\n")
    with pytest.raises(UserError, match=r"^the payloads of own_things:mean_of_squares must be fu"):
        tried_merge("own_things:mean_of_squares")


def test_the_source_counts_and_only_of_what_is_ones_own(folder: Path) -> None:
    assert own.sources(read_config({"task_name": "20newsgroups"})) == {}
    before = own.sources(own_config())
    assert before.keys() == {
        "source of own_things:" + name
        for name in ("messages", "mean_of_squares", "signs", "one_large", "balanced_accuracy")
    }
    path = folder / "own_things.py"
    path.write_text(path.read_text() + "# changed\n")
    after = own.sources(own_config())
    assert all(before[name] != after[name] for name in before)


def test_the_examples_of_a_task_depend_on_its_source(folder: Path) -> None:
    """The cache would otherwise give those that an earlier version of the task made."""
    config = own_config(data={"cache_dir": str(folder / "cache")})
    key = make_task(config).load_examples("train").key
    path = folder / "own_things.py"
    path.write_text(path.read_text() + "# changed\n")
    assert make_task(config).load_examples("train").key != key


@pytest.mark.parametrize("method", sorted(MERGES))
def test_every_merge_of_the_table_is_built(method: str) -> None:
    needed: dict[str, Any] = {}
    if MERGES[method].partial:
        needed = {"upload": {"density": 0.5}}
    if MERGES[method].needs_pairs:
        needed = {"adapter": {"kind": "lora"}}
    needed |= {"task_name": "20newsgroups", "num_clients": 10}
    config = read_config({"merge": {"method": method}, **needed})
    payloads = tried_merge(method).payloads
    updates = [
        replace(one, extras=statistics_of(payloads, one.client)) for one in some_updates(3, 1)
    ]
    assert merged(lambda: make_merge(config), updates).any()
