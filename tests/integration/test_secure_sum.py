"""The server learns the sum of the updates alone, and comes to the same state as with each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from harness import settings
from loop_grid import LoopGrid, broken, run_on_nodes
from one_process import QuickRun

from scaling_fl.composition.prediction import predict
from scaling_fl.core.errors import InputError, UserError
from scaling_fl.core.letters import INTEGERS
from scaling_fl.flower.content import letter_of
from scaling_fl.flower.grid_office import GridOffice, Patience
from scaling_fl.flower.secure_office import KEYS, MASKED, REVEAL, SHARES, SecureOffice
from scaling_fl.flower.signing import KEY, SIGNERS, public_key
from scaling_fl.runtime.record.journal import JobRecord

IDS = (70, 20, 50, 30)
LORA: dict[str, Any] = {"adapter": {"kind": "lora", "rank": 4}}
ROWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "half of the clients, scaled": {
        "clients_per_round": 2,
        "merge": {"method": "task_arithmetic", "scale": 0.5},
    },
    "factors in turns, and a server's optimiser": LORA
    | {"merge": {"method": "alternate"}, "server": {"optimiser": "adam", "bias_correction": False}},
    "tiers": LORA | {"tiers": [{"rank": 1}, {}], "download": {"codec": "nf4"}},
    "clip and noise": LORA
    | {"weighting": "uniform", "privacy": {"clip": 0.05, "noise_multiplier": 0.5}},
    "groups": LORA
    | {
        "weighting": "uniform",
        "privacy": {
            **{"clip": 0.05, "noise_multiplier": 0.5, "unit": "group"},
            **{"groups_per_client": 3, "groups_per_round": 2},
        },
    },
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCALING_FL_NOISE_SECRET", "0123456789abcdef" * 3)
    settings(tmp_path)
    return tmp_path / "home" / "scaling_fl"


def a_run(folder: Path, **changes: Any) -> QuickRun:
    return QuickRun(folder, shared=folder.parent, **{"num_rounds": 2, **changes})


def same_state(one: QuickRun, other: QuickRun) -> bool:
    ours, theirs = one.state(2), other.state(2)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def reasons(record: JobRecord) -> dict[tuple[int, int], str]:
    return {(row["round"], row["client"]): row["reason"] for row in record.failures}


def check_bytes(run: QuickRun, grid: LoopGrid) -> None:
    """Check that plan foretells what is counted, which is all that the messages held."""
    counted = [run.record.metrics[f"bytes.{way}"]["values"] for way in ("download", "upload")]
    foretold = predict(run.config, lambda text: None, is_secure=True)
    assert counted == [foretold.download_bytes, foretold.upload_bytes]
    assert grid.bytes_of_payloads == sum(map(sum, counted))


@pytest.mark.parametrize("name", ROWS)
def test_the_state_is_that_without_masks(name: str, tmp_path: Path) -> None:
    engine = a_run(tmp_path / "engine", **ROWS[name]).start_here()
    grid = LoopGrid(IDS)
    secure = run_on_nodes(a_run(tmp_path / "secure", **ROWS[name]), grid, is_secure=True)
    assert same_state(secure, engine)
    check_bytes(secure, grid)
    assert secure.record.metrics.keys() <= engine.record.metrics.keys()
    losses = [run.record.metrics["validation.loss"]["values"] for run in (secure, engine)]
    assert losses[0] == losses[1]
    assert secure.record.failures == []


def drop(client: int, what: str) -> Callable[[Message, Message], Message | None]:
    """Lose the answers of a client to one kind of letter, in round 2."""

    def tamper(message: Message, reply: Message) -> Message | None:
        facts = letter_of(message.content).facts
        if (facts.get("round"), facts.get("client"), facts.get("secure")) == (2, client, what):
            return broken(message, 5, "")
        return reply

    return tamper


@pytest.mark.parametrize("what", ["keys", "shares", "masked"])
def test_a_client_that_drops_out_leaves_the_sum_of_the_others(what: str, tmp_path: Path) -> None:
    def lose(message: Message, reply: Message) -> Message:
        facts = letter_of(message.content).facts
        gone = (facts.get("round"), facts.get("client")) == (2, 1)
        return broken(message, 5, "") if gone else reply

    plain = run_on_nodes(a_run(tmp_path / "plain"), LoopGrid(IDS, lose))
    grid = LoopGrid(IDS, drop(1, what))
    secure = run_on_nodes(a_run(tmp_path / "secure"), grid, is_secure=True)
    assert reasons(secure.record) == {(2, 1): "its node was lost"}
    assert reasons(plain.record) == reasons(secure.record)
    assert same_state(secure, plain)


def test_a_client_that_is_lost_after_it_sent_its_vector_is_in_the_sum(tmp_path: Path) -> None:
    engine = a_run(tmp_path / "engine").start_here()
    grid = LoopGrid(IDS, drop(1, "reveal"))
    secure = run_on_nodes(a_run(tmp_path / "secure"), grid, is_secure=True)
    assert secure.record.failures == []
    assert same_state(secure, engine)


def test_nodes_with_the_keys_of_all_sum_as_the_others(tmp_path: Path, home: Path) -> None:
    folders = [home / f"node-{number}" for number in range(len(IDS))]
    text = "\n".join(map(public_key, folders))
    for folder in folders[1:]:
        (folder / SIGNERS).write_text(text)
    secure = run_on_nodes(a_run(tmp_path / "secure"), LoopGrid(IDS), is_secure=True)
    assert secure.record.failures == []
    assert "3 of 4 nodes check whose keys the server gives to them" in secure.notes
    (folders[2] / SIGNERS).write_text("\n".join(map(public_key, folders[::-1])))
    for folder in folders:
        shutil.rmtree(folder / "secrets")  # the next job has the same name
    forged = run_on_nodes(a_run(tmp_path / "forged", num_rounds=1), LoopGrid(IDS), is_secure=True)
    why = "its node refuses to show more than a sum; the log of the node says why"
    assert reasons(forged.record) == {(1, 2): why}


def test_forty_clients_sum_among_neighbours_whoever_drops_out(tmp_path: Path) -> None:
    lost = {(KEYS, 3), (SHARES, 14), (MASKED, 22), (MASKED, 6), (REVEAL, 8)}

    def lose(message: Message, reply: Message) -> Message:
        facts = letter_of(message.content).facts
        is_lost = (facts.get("secure"), facts.get("client")) in lost
        return broken(message, 5, "") if is_lost else reply

    def lose_them(message: Message, reply: Message) -> Message:
        gone = letter_of(message.content).facts.get("client") in {3, 14, 22, 6}
        return broken(message, 5, "") if gone else reply

    changes = {"num_clients": 40, "num_rounds": 1}
    plain = run_on_nodes(a_run(tmp_path / "plain", **changes), LoopGrid(IDS, lose_them))
    secure = run_on_nodes(
        a_run(tmp_path / "secure", **changes), LoopGrid(IDS, lose), is_secure=True
    )
    assert reasons(secure.record) == reasons(plain.record)
    assert len(reasons(secure.record)) == 4
    ours, theirs = secure.state(1), plain.state(1)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_too_few_that_are_left_fail_the_round(tmp_path: Path) -> None:
    def lose(message: Message, reply: Message) -> Message:
        facts = letter_of(message.content).facts
        gone = facts.get("secure") == "masked" and facts["client"] in (1, 2)
        return broken(message, 5, "") if gone and facts["round"] == 2 else reply

    run = a_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"there is no sum: 3 of 4 clients must go on \(client 1"):
        run_on_nodes(run, LoopGrid(IDS, lose), is_secure=True)
    assert run.record.last_round == 1
    again = run_on_nodes(a_run(tmp_path / "run"), LoopGrid(IDS), is_secure=True)
    whole = a_run(tmp_path / "whole").start_here()
    assert same_state(again, whole)


def test_a_job_that_goes_back_sums_its_rounds_again(tmp_path: Path) -> None:
    changes = {"num_rounds": 4, "save_every": 2}
    whole = a_run(tmp_path / "whole", **changes).start_here()
    again = a_run(tmp_path / "run", **changes)
    summed = []

    def look(message: Message, reply: Message) -> Message:
        facts = letter_of(message.content).facts
        if (facts.get("secure"), facts.get("client")) == (REVEAL, 0):
            summed.append(facts["round"])
        return reply

    office = SecureOffice(GridOffice(LoopGrid(IDS, look), Patience(), lambda: None))
    again.start_here(office=office, stop_after=3)
    again.start_here(office=office)
    assert summed == [1, 2, 3, 3, 4]
    assert again.record.failures == []
    ours, theirs = again.state(4), whole.state(4)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_single_client_of_a_round_is_not_shown(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", clients_per_round=1)
    with pytest.raises(UserError, match="the sum of a single client is its update"):
        run_on_nodes(run, LoopGrid(IDS), is_secure=True)


def test_what_arrives_are_masked_vectors_alone(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def look(message: Message, reply: Message) -> Message:
        asked, answer = letter_of(message.content), letter_of(reply.content)
        if asked.facts.get("secure") == "masked":
            seen.extend(answer.parts.values())
        if "secure" in asked.facts:
            assert (INTEGERS in answer.parts) == (asked.facts["secure"] == "masked")
            assert answer.parts.keys() - {INTEGERS} <= set("0123")
        return reply

    run_on_nodes(a_run(tmp_path / "run"), LoopGrid(IDS, look), is_secure=True)
    assert len(seen) == 8
    for data in seen:
        bits = np.unpackbits(np.frombuffer(data, np.uint8))
        assert abs(bits.mean() - 0.5) < 0.01
    assert len(set(seen)) == 8


def test_secrets_of_a_former_round_are_gone_and_nobody_else_may_read_them(
    tmp_path: Path, home: Path
) -> None:
    run_on_nodes(a_run(tmp_path / "run"), LoopGrid(IDS), is_secure=True)
    files = list((home / "node-1" / "secrets").rglob("*.json"))
    assert [path.name for path in files] == ["client-000001.json"]
    assert json.loads(files[0].read_text())["masker"]["context"].endswith(" 2")
    assert [path.stat().st_mode & 0o077 for path in (*files, home / "node-1" / KEY)] == [0, 0]


def test_what_needs_more_than_the_sum_is_refused_at_once(tmp_path: Path) -> None:
    changes = LORA | {"merge": {"method": "median"}, "upload": {"codec": "nf4"}}
    run = a_run(tmp_path / "run", **changes)
    with pytest.raises(
        InputError, match=r"merge.method must be mean .* alternate, .*; upload.codec must be none"
    ):
        run_on_nodes(run, LoopGrid(IDS), is_secure=True)
    with pytest.raises(InputError, match=r"upload\.codec must be none"):
        predict(run.config, lambda text: None, is_secure=True)
