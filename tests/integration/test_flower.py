"""A federation over Flower's nodes: what a node may do to it, and what it may not.

That its result is the engine's, bit for bit, is the table's to say (``test_every_pair``).
"""

import json
import os
import signal
import time
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

from scaling_fl.core.errors import InputError, UserError
from scaling_fl.core.letters import Letter
from scaling_fl.flower.content import content_of, letter_of
from scaling_fl.flower.grid_office import Patience
from scaling_fl.flower.resident import LOCK, SOCKET
from scaling_fl.runtime.storage.processes import process_start

IDS = (70, 20, 50, 30)
LORA = {"adapter": {"kind": "lora", "rank": 4}}
FEEDBACK = LORA | {"upload": {"codec": "nf4", "error_feedback": True}}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    settings(tmp_path)
    return tmp_path / "home" / "scaling_fl"


def a_run(folder: Path, **changes: Any) -> QuickRun:
    return QuickRun(folder, shared=folder.parent, **(LORA | changes))


def in_round(number: int, client: int, change: Callable[[Letter], Any]) -> Any:
    """Change what the node of a client answers in a round; None: nothing arrives."""

    def tamper(message: Message, reply: Message) -> Message | None:
        facts = letter_of(message.content).facts
        if (facts.get("round"), facts.get("client")) != (number, client):
            return reply
        answer = change(letter_of(reply.content))
        if isinstance(answer, Letter):
            return Message(content_of(answer), reply_to=message)
        return broken(message, *answer) if answer else None

    return tamper


def facts(**changes: Any) -> Callable[[Letter], Letter]:
    return lambda letter: replace(letter, facts={**letter.facts, **changes})


def payload(change: Callable[[bytes], bytes]) -> Callable[[Letter], Letter]:
    return lambda letter: replace(letter, parts={"payload": change(letter.parts["payload"])})


def nothing(letter: Letter) -> None:
    return None


MUST_NOT = "its node sent what it must not: "
WRONG: dict[str, tuple[Callable[[Letter], Any], str]] = {
    "an exception, whose text stays away": (
        lambda letter: (2, "ValueError: patient 17"),
        "its node failed; the log of the node says why",
    ),
    "a node that is lost": (lambda letter: (5, "x"), "its node was lost"),
    "no answer": (nothing, "its node did not answer within 1 s"),
    "another round": (facts(round=1), MUST_NOT + "an answer about client and round (1, 1)"),
    "another client": (facts(client=3), MUST_NOT + "an answer about client and round (3, 2)"),
    "a short payload": (payload(lambda data: data[:-1]), MUST_NOT),
    "a flipped bit": (payload(lambda data: data[:-1] + bytes([data[-1] ^ 1])), "checksum"),
    "another header": (payload(lambda data: b"X" + data[1:]), "must start with"),
    "no payload": (lambda letter: replace(letter, parts={}), MUST_NOT + "the parts"),
    "no facts": (lambda letter: replace(letter, facts={}), MUST_NOT),
    "a loss that is no number": (facts(metrics={"loss": "0"}), MUST_NOT),
    "a loss of nan": (facts(metrics={"loss": None}), "its loss is nan"),
    "a metric of ours": (facts(metrics={"loss": 1.0, "round": 1.0}), MUST_NOT),
    "a text as its reason": (
        facts(failure="patient 17 is ill"),
        "its node failed; the log of the node says why",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_node_must_not_send_leaves_its_client_out_and_says_so(
    name: str, tmp_path: Path
) -> None:
    change, said = WRONG[name]
    grid = LoopGrid(IDS, in_round(2, 1, change))
    run = run_on_nodes(a_run(tmp_path / "run"), grid, Patience(round=1.0))
    failures = {(r["round"], r["client"]): r["reason"] for r in run.record.failures}
    assert failures.keys() == {(2, 1)}
    assert said in failures[2, 1]
    assert "patient" not in run.journal.read_text()
    assert run.record.last_round == 3


def test_a_round_fails_where_too_few_clients_are_left(tmp_path: Path) -> None:
    grid = LoopGrid(IDS, in_round(2, 1, lambda letter: (5, "")))
    run = a_run(tmp_path / "run", min_clients=4)
    with pytest.raises(UserError, match=r"min_clients=4 .* \(client 1: its node was lost\)"):
        run_on_nodes(run, grid)
    assert run.record.last_round == 1


def test_the_order_of_nodes_and_their_number_change_nothing(tmp_path: Path) -> None:
    digests = {
        run_on_nodes(a_run(tmp_path / str(number)), LoopGrid(ids)).digest
        for number, ids in enumerate([(70, 20, 50, 30), (1, 2, 3, 4), (9,), (8, 3)])
    }
    assert len(digests) == 1


def test_nodes_that_are_missing_are_named(tmp_path: Path) -> None:
    grid = LoopGrid(IDS)
    grid.away = {50}
    with pytest.raises(UserError, match=r"4 nodes must be there .* node \[2\] is missing"):
        run_on_nodes(a_run(tmp_path / "run"), grid, Patience(nodes=0.2))


def test_a_node_that_is_away_for_a_round_takes_part_in_the_next(tmp_path: Path) -> None:
    def hide(message: Message, reply: Message) -> Message:
        if (number := letter_of(message.content).facts.get("round")) is not None:
            grid.away = {20} if number == 1 else set()
        return reply

    grid = LoopGrid(IDS, hide)
    run = run_on_nodes(a_run(tmp_path / "run"), grid)
    failures = [(r["round"], r["client"], r["reason"]) for r in run.record.failures]
    assert failures == [(2, 1, "its node is away")]


def test_a_node_with_other_data_is_refused(tmp_path: Path) -> None:
    def other(message: Message, reply: Message) -> Message:
        answer = letter_of(reply.content)
        if message.metadata.dst_node_id == 50 and "train" in answer.facts:
            answer = facts(train="other")(answer)
        return Message(content_of(answer), reply_to=message)

    run = a_run(tmp_path / "run")
    with pytest.raises(UserError, match="the training data of the server, and node 2 has other"):
        run_on_nodes(run, LoopGrid(IDS, other))
    assert run.record.last_round == 0


def test_a_server_that_goes_back_finds_what_its_clients_remembered_then(
    tmp_path: Path, home: Path
) -> None:
    whole = run_on_nodes(a_run(tmp_path / "whole", **FEEDBACK), LoopGrid(IDS))
    run = a_run(tmp_path / "run", **FEEDBACK)
    run_on_nodes(run, LoopGrid(IDS))
    for number in (2, 3):  # as after a kill before these checkpoints were written
        for path in (run.checkpoints / f"round-{number:06d}").iterdir():
            path.unlink()
        (run.checkpoints / f"round-{number:06d}").rmdir()
    run = a_run(tmp_path / "run", **FEEDBACK)
    run_on_nodes(run, LoopGrid((1, 2, 3, 4)))
    assert run.digest == whole.digest
    states = [each.state(3) for each in (run, whole)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_node_that_has_lost_what_its_clients_remember_says_so(tmp_path: Path, home: Path) -> None:
    def forget(message: Message, reply: Message) -> Message:
        if letter_of(message.content).facts.get("round") == 1:
            for path in (home / "node-2").rglob("*.safetensors"):
                path.unlink()
        return reply

    run = run_on_nodes(a_run(tmp_path / "run", **FEEDBACK), LoopGrid(IDS, forget))
    failures = {(r["round"], r["client"]): r["reason"] for r in run.record.failures}
    assert failures[2, 2] == "its node no longer has what the client remembered"


def test_only_turns_that_the_job_can_go_back_to_are_kept(tmp_path: Path, home: Path) -> None:
    changes = FEEDBACK | {"num_rounds": 6, "keep_last": 2}
    run_on_nodes(a_run(tmp_path / "run", **changes), LoopGrid(IDS))
    kept = {int(path.stem[-6:]) for path in (home / "node-0").rglob("*.safetensors")}
    assert kept == {4, 5, 6}


def test_clients_that_remember_on_nodes_do_not_go_on_without_them(tmp_path: Path) -> None:
    run_on_nodes(a_run(tmp_path / "run", **FEEDBACK), LoopGrid(IDS))
    further = FEEDBACK | {"num_rounds": 4}
    with pytest.raises(InputError, match="go on with `flwr run`"):
        a_run(tmp_path / "run", **further).start_here()
    a_run(tmp_path / "other", **FEEDBACK).start_here()
    with pytest.raises(InputError, match="go on with this command"):
        run_on_nodes(a_run(tmp_path / "other", **further), LoopGrid(IDS))


def test_a_job_without_such_memory_goes_on_here_and_there(tmp_path: Path) -> None:
    run_on_nodes(a_run(tmp_path / "run"), LoopGrid(IDS))
    here = a_run(tmp_path / "run", num_rounds=4).start_here()
    there = run_on_nodes(a_run(tmp_path / "run", num_rounds=5), LoopGrid(IDS))
    whole = a_run(tmp_path / "whole", num_rounds=5).start_here()
    assert here.record.last_round == 4 or there.record.last_round == 5
    states = [each.state(5) for each in (there, whole)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_nodes_with_data_of_their_own_train_on_it(tmp_path: Path) -> None:
    rows = [{"text": f"{w} {n}", "label": w, "who": f"c{n % 2}"} for n in range(40) for w in "ab"]
    lines = {
        who: [json.dumps(r) for r in rows if who in ("", r["who"])] for who in ("", "c0", "c1")
    }
    for who, found in lines.items():
        (tmp_path / f"{who}rows.jsonl").write_text("\n".join(found))
    (tmp_path / "test.jsonl").write_text("\n".join(lines[""][:20]))
    table = {
        "task_name": "table",
        "test_path": str(tmp_path / "test.jsonl"),
        "data": {"text": "text", "label": "label", "labels": "a,b", "cache_dir": str(tmp_path)},
        "num_clients": None,
    }
    column = {"partition": {"kind": "column", "column": "who"}}
    train = {"train_path": str(tmp_path / "rows.jsonl")}
    whole = a_run(tmp_path / "whole", **table, **column, **train).start_here()
    grid = LoopGrid((8, 3))
    for node, who in zip((8, 3), ("c0", "c1"), strict=True):
        path = str(tmp_path / f"{who}rows.jsonl")
        grid.configure(node, **{"train-path": path})
    run = run_on_nodes(a_run(tmp_path / "run", **table, train_path=None, has_data=False), grid)
    states = [each.state(3) for each in (run, whole)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert run.record.partition
    assert run.record.partition["sizes"] == [40, 40]
    assert "40 to 40 each" in " ".join(run.notes)


@pytest.mark.slow
def test_a_node_with_a_folder_keeps_its_model_in_a_process_that_may_die(tmp_path: Path) -> None:
    pids: list[int] = []

    def note(message: Message, reply: Message) -> Message:
        if (
            message.metadata.dst_node_id == 8
            and letter_of(message.content).facts["what"] == "train"
        ):
            pids.append(int((tmp_path / "node-0" / LOCK).read_text()))
            if len(pids) == 2:
                os.kill(pids[-1], signal.SIGKILL)
        return reply

    grid = LoopGrid((8, 3), note)
    for number, node in enumerate((8, 3)):
        grid.configure(node, folder=str(tmp_path / f"node-{number}"))
    run = run_on_nodes(a_run(tmp_path / "run", num_clients=2, **FEEDBACK), grid)
    for number in (0, 1):  # which is how a node is stopped
        (tmp_path / f"node-{number}" / SOCKET).unlink()
    whole = run_on_nodes(a_run(tmp_path / "whole", num_clients=2, **FEEDBACK), LoopGrid((8, 3)))
    assert run.digest == whole.digest
    first, second, third = pids
    assert first == second != third
    deadline = time.monotonic() + 30.0
    while process_start(third) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not process_start(third)
    assert (tmp_path / "node-0").stat().st_mode & 0o077 == 0
