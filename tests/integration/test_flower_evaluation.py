"""Test examples that the clients answer themselves, on their nodes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from harness import settings
from loop_grid import LoopGrid, broken, run_on_nodes
from one_process import QuickRun

from scaling_fl.composition.notices import Notices
from scaling_fl.composition.own_models import model_of, own_parts
from scaling_fl.core.errors import InputError, UserError
from scaling_fl.core.letters import Letter
from scaling_fl.core.records import RoundReport
from scaling_fl.federation.evaluator import EVALUATION_BYTES, MISSING
from scaling_fl.flower.content import content_of, letter_of
from scaling_fl.runtime.record.turns import remembered_jobs
from scaling_fl.runtime.tracking.places import Saved, open_saved

IDS = (70, 20)
SHARED: dict[str, Any] = {
    "adapter": {"kind": "lora", "rank": 4},
    "merge": {"method": "share_a"},
    "iid_split": False,
    "clients_per_round": 2,
    "learning_rate": 0.05,
}
Change = Callable[[Letter], Letter]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    settings(tmp_path)
    return tmp_path / "home" / "scaling_fl"


def a_run(folder: Path, **changes: Any) -> QuickRun:
    return QuickRun(folder, shared=folder.parent, **(SHARED | changes))


def same(one: QuickRun, other: QuickRun, number: int = 3) -> bool:
    ours, theirs = one.state(number), other.state(number)
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def results(run: QuickRun) -> dict[str, tuple[list[int], list[float]]]:
    return {name: values for name, values in run.results().items() if name != EVALUATION_BYTES}


def test_each_client_answers_by_its_own_part_as_in_the_engine(tmp_path: Path) -> None:
    engine = a_run(tmp_path / "engine").start_here()
    run = run_on_nodes(a_run(tmp_path / "run"), grid := LoopGrid(IDS))
    assert same(run, engine)
    assert results(run) == results(engine)
    num_bytes = run.results()["bytes.total"][1][-1] + sum(run.results()[EVALUATION_BYTES][1])
    assert grid.bytes_of_payloads == num_bytes


def test_several_workers_and_a_second_start_change_nothing(tmp_path: Path) -> None:
    engine = a_run(tmp_path / "engine").start_here()
    grid = LoopGrid(IDS)
    run_on_nodes(a_run(tmp_path / "run", num_rounds=2), grid)
    run = run_on_nodes(a_run(tmp_path / "run", site_ids=[0, 1], num_clients=4), grid)
    assert same(run, engine)
    assert results(run) == results(engine)


def test_it_does_not_go_on_where_the_parts_are_not(tmp_path: Path) -> None:
    run_on_nodes(a_run(tmp_path / "run"), LoopGrid(IDS))
    with pytest.raises(InputError, match=r"merge.method=share_a .* go on with `flwr run`"):
        a_run(tmp_path / "run", num_rounds=4).start_here()


def answered(client: int, change: Callable[[Letter], Letter | None]) -> Any:
    """Change what the node of a client answers when it is asked to evaluate."""

    def tamper(message: Message, reply: Message) -> Message:
        facts = letter_of(message.content).facts
        if (facts["what"], facts.get("client")) != ("evaluate", client):
            return reply
        found = change(letter_of(reply.content))
        return Message(content_of(found), reply_to=message) if found else broken(message, 2, "")

    return tamper


def counts(change: Callable[[bytes], bytes]) -> Change:
    return lambda letter: replace(letter, parts={"counts": change(letter.parts["counts"])})


@pytest.mark.parametrize(
    "change",
    [
        lambda letter: None,
        lambda letter: Letter({"failure": "forgotten"}),
        lambda letter: replace(letter, facts={"client": 3}),
        counts(lambda part: part[:-1]),
        counts(lambda part: b"\xff" * len(part)),
    ],
    ids=["lost", "forgotten", "of another client", "cut off", "negative"],
)
def test_an_evaluation_without_all_clients_has_no_metrics(change: Change, tmp_path: Path) -> None:
    run = run_on_nodes(a_run(tmp_path / "run"), LoopGrid(IDS, answered(1, change)))
    of_tests = {name for name in run.results() if name.startswith("validation")}
    assert of_tests == {MISSING}
    assert run.results()[MISSING] == ([1, 2, 3], [1.0, 1.0, 1.0])
    assert run.record.last_round == 3


def test_a_notice_says_that_nodes_did_not_answer(tmp_path: Path) -> None:
    config = a_run(tmp_path / "run").config.model_dump(mode="json")
    report = RoundReport(round=2, metrics={MISSING: 2.0}, clients=[])
    (notice,) = Notices(config, lambda number: 0.0).of(report)
    assert notice.startswith("round 2 has no validation metrics, because the nodes of 2 clients")


def newest(run: QuickRun) -> Saved:
    return open_saved(run.url, lambda text: None)


def test_the_model_of_a_client_is_put_together_on_its_node(home: Path, tmp_path: Path) -> None:
    engine = newest(a_run(tmp_path / "engine", clients_per_round=4).start_here())
    run = newest(run_on_nodes(a_run(tmp_path / "run", clients_per_round=4), LoopGrid(IDS)))
    vector = run.checkpoint.vector
    with pytest.raises(UserError, match=r"client 1 of .* lies on its node, .* --node"):
        model_of(run, 1, vector)
    node = str(home / "node-1" / "memory" / "u")
    assert torch.equal(model_of(run, 1, vector, node=node), model_of(engine, 1, vector))
    with pytest.raises(UserError, match="client 2 of"):  # which is on the other node
        model_of(run, 2, vector, node=node)


def test_not_all_clients_are_evaluated_where_their_parts_are_elsewhere(tmp_path: Path) -> None:
    run = newest(run_on_nodes(a_run(tmp_path / "run"), LoopGrid(IDS)))
    own = own_parts(run)
    assert own
    with pytest.raises(UserError, match="lies on its node"):
        own.check_are_here(own.memories)


def test_a_node_forgets_a_job_and_its_clients_are_left_out(home: Path, tmp_path: Path) -> None:
    feedback = {"merge": {}, "upload": {"codec": "nf4", "error_feedback": True}}
    of_all = feedback | {"clients_per_round": 4}
    run_on_nodes(a_run(tmp_path / "run", **of_all, num_rounds=2), LoopGrid(IDS))
    (job,) = remembered_jobs(home / "node-1" / "memory")
    assert (job.uid, job.name, job.num_clients) == ("u", "j", 2)
    assert job.num_bytes > 0
    job.forget()
    assert remembered_jobs(home / "node-1" / "memory") == []
    run = run_on_nodes(a_run(tmp_path / "run", **of_all), LoopGrid(IDS))
    failures = {(row["client"], row["reason"]) for row in run.record.failures}
    why = "its node no longer has what the client remembered"
    assert failures == {(1, why), (3, why)}


def rows_of(*who: str) -> str:
    return "\n".join(
        json.dumps({"text": f"{word} {n}", "label": word, "who": f"c{n % 2}"})
        for n in range(40)
        for word in "ab"
        if f"c{n % 2}" in who
    )


@pytest.fixture
def table(tmp_path: Path) -> dict[str, Any]:
    """Settings of a table, of which node i has the rows of ci, to train on and to be tested by."""
    for name, who in {"all": ("c0", "c1"), "0": ("c0",), "1": ("c1",)}.items():
        (tmp_path / f"{name}.jsonl").write_text(rows_of(*who))
        (tmp_path / f"test{name}.jsonl").write_text("\n".join(rows_of(*who).split("\n")[:30]))
    data = {"text": "text", "label": "label", "labels": "a,b", "cache_dir": str(tmp_path)}
    return {"task_name": "table", "data": data, "num_clients": None, "iid_split": True}


def owning(folder: Path, *, tests: bool = True) -> LoopGrid:
    grid = LoopGrid(IDS)
    for number, node in enumerate(IDS):
        paths = {"train-path": str(folder / f"{number}.jsonl")}
        paths |= {"test-path": str(folder / f"test{number}.jsonl")} if tests else {}
        grid.configure(node, **paths)
    return grid


NO_DATA = {"train_path": None, "test_path": None, "has_data": False}


@pytest.mark.parametrize("method", ["share_a", "mean"])
def test_nodes_are_tested_on_data_of_their_own(
    method: str, table: dict[str, Any], tmp_path: Path
) -> None:
    table |= {"merge": {"method": method}, "per_class_metrics": True}
    run = run_on_nodes(a_run(tmp_path / "run", **table, **NO_DATA), owning(tmp_path))
    (tmp_path / "test.jsonl").write_text(
        "\n".join((tmp_path / f"test{n}.jsonl").read_text() for n in range(2))
    )
    paths = {"train_path": str(tmp_path / "all.jsonl"), "test_path": str(tmp_path / "test.jsonl")}
    column = {"partition": {"kind": "column", "column": "who"}}
    engine = a_run(tmp_path / "engine", **(table | column), **paths).start_here()
    assert same(run, engine)
    assert results(run) == results(engine)
    assert not any("no test example" in note for note in run.notes)


def test_settings_that_the_test_data_of_nodes_rule_out_are_refused(
    table: dict[str, Any], tmp_path: Path
) -> None:
    run = a_run(tmp_path / "run", **table, **NO_DATA)
    with pytest.raises(InputError, match="give each node a test-path"):
        run_on_nodes(run, owning(tmp_path, tests=False))
    run = a_run(tmp_path / "moved", **table | {"merge": {"method": "exact"}}, **NO_DATA)
    with pytest.raises(InputError, match="needs the test data on the server"):
        run_on_nodes(run, owning(tmp_path))
    grid = owning(tmp_path)
    grid.configure(IDS[1], **{"train-path": str(tmp_path / "1.jsonl")})
    del grid.contexts[IDS[1]].node_config["test-path"]
    with pytest.raises(UserError, match=r"test data of their own \(test-path\), or none"):
        run_on_nodes(a_run(tmp_path / "some", **table, **NO_DATA), grid)


def test_a_run_may_stop_by_metrics_of_data_that_only_nodes_have(
    table: dict[str, Any], tmp_path: Path
) -> None:
    when = {"stop_when": {"metric": "validation.accuracy", "target": 0.1}}
    run = run_on_nodes(a_run(tmp_path / "run", **table, **when, **NO_DATA), owning(tmp_path))
    assert run.record.last_round == 1
