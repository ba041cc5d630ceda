"""The groups that privacy protects may be those of a column: providers, patients, writers."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_process import QuickRun
from PIL import Image

from scaling_fl.composition.clients import groups_of
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import ConfigurationError, read_config
from scaling_fl.core.errors import InputError
from scaling_fl.core.seeding import from_seed
from scaling_fl.learning.tables.records import columns_of, read_records
from scaling_fl.learning.task import Grouped
from scaling_fl.methods.sampling import poisson_groups

SECRET = "a secret of at least 32 characters"
PRIVATE: dict[str, Any] = {
    "clip": 0.5,
    "unit": "group",
    "group_column": "provider",
    "groups_per_client": 6,
    "groups_per_round": 3,
}
SHARED: dict[str, Any] = {
    "weighting": "uniform",
    "sampling": "poisson",
    "clients_per_round": 1.0,
    "partition": {"kind": "column", "column": "who"},
    "privacy": PRIVATE,
    "num_clients": None,
}


def a_row(number: int) -> dict[str, Any]:
    """A row of one of two clients, which have three and five providers."""
    who = number % 2
    return {
        "text": f"{'ab'[number % 3 == 0]} {number}",
        "label": "ab"[number % 3 == 0],
        "instruction": f"Say {number}.",
        "response": f"It is {number}.",
        "image": f"{number}.png",
        "who": f"c{who}",
        "provider": f"p{number % (3 + 2 * who)}",
    }


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for number in range(60):
        Image.new("L", (8, 8), 4 * number).save(tmp_path / f"{number}.png")
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(a_row(number)) for number in range(60)))
    return path


KINDS: dict[str, dict[str, Any]] = {
    "table": {"data": {"text": "text", "label": "label"}},
    "instruction": {"data": {"instruction": "instruction", "response": "response"}},
    "images": {"data": {"image": "image", "label": "label", "image_size": 8}},
}


def of_table(kind: str, table: Path, **changes: Any) -> dict[str, Any]:
    data = {"cache_dir": str(table.parent / "cache"), "test_share": 0.2} | KINDS[kind]["data"]
    more = {"max_seq_len": 64} if kind != "images" else {}
    found = {"task_name": kind, "model": "tiny", "train_path": str(table), "test_path": None}
    data |= changes.pop("task_data", {})
    return SHARED | found | more | {"data": data} | changes


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_keeps_its_group_when_rows_are_held_out(kind: str, table: Path) -> None:
    task = make_task(read_config(of_table(kind, table)))
    train = task.load_examples("train")
    assert isinstance(train, Grouped)
    assert train.groups is not None
    owners = task.owners(train)  # type: ignore[attr-defined]
    found = Counter(zip(owners.tolist(), train.groups.tolist(), strict=True))
    assert {group for owner, group in found if owner == 0} == {0, 1, 2}
    assert {group for owner, group in found if owner == 1} == {0, 1, 2, 3, 4}
    records = read_records(str(table), "train", ["who", "provider"])
    pairs = Counter(zip(records.cells["who"], records.cells["provider"], strict=True))
    assert all(count <= pairs[f"c{o}", f"p{g}"] for (o, g), count in found.items())
    assert sum(found.values()) == len(train) == 48
    plain = of_table(kind, table, privacy={}, sampling="fixed")
    without = make_task(read_config(plain)).load_examples("train")
    assert np.array_equal(without.lengths, train.lengths)
    assert without.key != train.key


def test_a_client_has_a_group_for_each_value(table: Path) -> None:
    config = read_config(of_table("table", table))
    train = make_task(config).load_examples("train")
    mine = np.flatnonzero(make_task(config).owners(train) == 1)  # type: ignore[attr-defined]
    groups = groups_of(config, train, mine, 1)
    assert np.array_equal(np.sort(np.concatenate(groups)), mine)
    assert [set(train.groups[group].tolist()) for group in groups] == [  # type: ignore[attr-defined]
        {0},
        {1},
        {2},
        {3},
        {4},
    ]
    too_few = config.model_copy(
        update={"privacy": config.privacy.model_copy(update={"groups_per_client": 4})}
    )
    with pytest.raises(InputError, match=r"client 1 has 5, got 4; raise privacy"):
        groups_of(too_few, train, mine, 1)


def test_a_group_is_drawn_whatever_others_there_are() -> None:
    sample = poisson_groups(3, 6, from_seed(1))
    few = [sample(4, number, 0, "") for number in range(500)]
    many = [sample(6, number, 0, "") for number in range(500)]
    assert [[group for group in drawn if group < 4] for drawn in many] == few
    assert abs(sum(map(len, few)) / 2000 - 0.5) < 0.05


@pytest.mark.slow
def test_a_private_run_protects_the_groups_of_a_column(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALING_FL_NOISE_SECRET", SECRET)
    data = KINDS["table"]["data"] | {"labels": "a,b", "test_share": None}
    noisy = PRIVATE | {"noise_multiplier": 0.5}
    test = tmp_path / "test.jsonl"
    test.write_text(table.read_text())
    of_run = {"num_rounds": 2, "test_path": str(test), "privacy": noisy}
    settings = of_table("table", table, **of_run, task_data=data)
    run = QuickRun(tmp_path / "run", shared=tmp_path, **settings).start_here()
    # The same rows whose groups have other names, in the same order: nothing else may matter.
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_text(table.read_text().replace('"provider": "p', '"provider": "company '))
    settings = of_table("table", renamed, **of_run, task_data=data)
    other = QuickRun(tmp_path / "other", shared=tmp_path, **settings).start_here()
    epsilon = run.record.metrics["privacy.epsilon"]["values"]
    assert epsilon == other.record.metrics["privacy.epsilon"]["values"]
    assert all(torch.isfinite(value).all() for value in run.state(2).values())
    dealt = of_table("table", table, **of_run, task_data=data)
    dealt["privacy"] = {name: value for name, value in noisy.items() if name != "group_column"}
    at_random = QuickRun(tmp_path / "random", shared=tmp_path, **dealt).start_here()
    assert epsilon == at_random.record.metrics["privacy.epsilon"]["values"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampling": "fixed"}, "sampling must be poisson with"),
        ({"privacy": PRIVATE | {"group_column": "provder"}}, "use privacy.group_column=provider"),
        ({"privacy": PRIVATE | {"unit": "client"}}, "privacy.group_column"),
        ({"task_name": "spooky_author"}, "privacy.group_column must be left alone unless"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], said: str, table: Path) -> None:

    with pytest.raises(ConfigurationError) as error:
        read_config(of_table("table", table, **changes), columns_of=columns_of)
    assert said in str(error.value)
