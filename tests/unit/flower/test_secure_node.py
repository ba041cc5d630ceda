"""Nodes add up under any server that they can do so with, and refuse one that asks for more."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling_fl.core.letters import INTEGERS, SUM, TRAFFIC, Letter
from scaling_fl.core.places import Place
from scaling_fl.federation.neighbours import bytes_beside, num_neighbours, ring
from scaling_fl.flower.secure_node import answer_secure, check_open
from scaling_fl.flower.secure_office import KEYS, MASKED, REVEAL, SHARES, SecureOffice
from scaling_fl.flower.secure_sum import Integers, Refused
from scaling_fl.flower.signing import introduce, sign

SIZE = 57
Change = Callable[[int, Letter], Letter]


def vector(client: int) -> Integers:
    edge = np.iinfo(np.int64)
    return np.random.default_rng(client).integers(edge.min, edge.max, SIZE, dtype=np.int64)


def total(clients: Collection[int]) -> Integers:
    return sum((vector(client) for client in clients), np.zeros(SIZE, np.int64))


def turn(letter: Letter) -> tuple[Letter, Integers]:
    return Letter({"own": sorted(letter.parts)}), vector(int(letter.facts["client"])).copy()


class Nodes:
    """Two nodes in this process, whose clients may drop out, and whose letters may be changed."""

    num_nodes, owns_data, owns_tests, is_secure = 2, False, False, False

    def __init__(self, folder: Path) -> None:
        self.folders = [folder / f"node{number}" for number in range(self.num_nodes)]
        self.lost: set[tuple[str, int]] = set()
        """Whose answers to what do not arrive."""
        self.change: Change = lambda client, letter: letter
        self.refusals: dict[int, str] = {}

    # An office must have it; no secure sum asks for it.
    def describe(self, letter: Letter) -> list[Letter | str]:
        raise NotImplementedError

    def exchange(
        self, letters: Mapping[int, Letter], check: Callable[[], None]
    ) -> Iterator[tuple[int, Letter | str]]:
        for client, letter in letters.items():
            folder = self.folders[client % self.num_nodes]
            try:
                answer: Letter | str = answer_secure(self.change(client, letter), folder, turn)
            except Refused as error:
                answer = self.refusals[client] = str(error)
            is_lost = (str(letter.facts["secure"]), client) in self.lost
            yield client, "its node was lost" if is_lost else answer


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def ask(nodes: Nodes, num_clients: int, number: int = 3, **more: Any) -> dict[int, Letter | str]:
    facts = {"what": "train", "job": "job", "round": number, "size": SIZE, "oldest": 0, **more}
    parts = {"payload": bytes(100)}
    letters = {n: Letter({**facts, "client": n}, parts) for n in range(num_clients)}
    return dict(SecureOffice(nodes).exchange(letters, lambda: None))


def summed(answers: Mapping[int, Letter | str]) -> Integers:
    letter = answers[SUM]
    assert isinstance(letter, Letter), letter
    return np.frombuffer(letter.parts[INTEGERS], np.int64)


def left_out(answers: Mapping[int, Letter | str]) -> set[int]:
    return {client for client, answer in answers.items() if isinstance(answer, str)}


@pytest.mark.parametrize("num_clients", [2, 5, 40])
def test_the_sum_is_that_of_the_vectors_and_bytes_are_those_foretold(
    num_clients: int, nodes: Nodes
) -> None:
    answers = ask(nodes, num_clients)
    assert np.array_equal(summed(answers), total(range(num_clients)))
    down, up = bytes_beside(num_clients)
    wanted = [[n, 100 + down, 8 * SIZE + up] for n in range(num_clients)]
    assert isinstance(answers[SUM], Letter)
    assert answers[SUM].facts[TRAFFIC] == wanted
    first = answers[0]
    assert isinstance(first, Letter)
    assert first.facts["own"] == ["payload"]


PHASES = [KEYS, SHARES, MASKED, REVEAL]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("num_clients", "most"), [(5, 2), (40, 8)])
def test_as_many_as_may_drop_out_do_in_any_phase_and_one_more_ends_the_round(
    num_clients: int, most: int, phase: str, nodes: Nodes
) -> None:
    # Far apart in the ring: next to each other, so many could leave a client without neighbours.
    clients = list(ring(range(num_clients), "job 3"))[:: num_clients // (most + 1)]
    nodes.lost = {(phase, client) for client in clients[:most]}
    answers = ask(nodes, num_clients)
    gone = set() if phase == REVEAL else set(clients[:most])
    assert left_out(answers) == gone
    assert np.array_equal(summed(answers), total(set(range(num_clients)) - gone))
    if phase == REVEAL and num_clients == 40:
        return  # that many are in the sum, and enough neighbours of each are left
    nodes.lost.add((phase, clients[most]))
    assert "there is no sum" in str(ask(nodes, num_clients, 4)[SUM])


def test_drop_outs_in_all_phases_leave_the_sum_of_those_that_sent_theirs(nodes: Nodes) -> None:
    nodes.lost = {(KEYS, 3), (SHARES, 14), (SHARES, 5), (MASKED, 22), (MASKED, 6), (REVEAL, 8)}
    answers = ask(nodes, 40)
    assert left_out(answers) == {3, 14, 5, 22, 6}
    assert np.array_equal(summed(answers), total(set(range(40)) - {3, 14, 5, 22, 6}))


def test_what_a_client_sends_grows_with_its_neighbours_alone(tmp_path: Path) -> None:
    sent = {}
    for num_clients in (22, 44):
        nodes = Nodes(tmp_path / str(num_clients))
        sent[num_clients] = ask(nodes, num_clients)[SUM]
    assert num_neighbours(22) == num_neighbours(44) == 20
    rows = [{tuple(row[1:]) for row in each.facts[TRAFFIC]} for each in sent.values()]  # type: ignore[union-attr]
    assert len(rows[0]) == 1
    assert rows[0] == rows[1]


def lying(what: str, **facts: Any) -> Change:
    def change(client: int, letter: Letter) -> Letter:
        if letter.facts["secure"] != what:
            return letter
        return Letter({**letter.facts, **facts}, letter.parts)

    return change


LIES = {
    "too few neighbours": (
        lying(SHARES, neighbours=[1, 2]),
        "each of 5 clients must have 4 neighbours, got ",
    ),
    "one neighbour twice": (
        lying(SHARES, neighbours=[1, 1, 2, 3]),
        "each of 5 clients must have 4 neighbours, got ",
    ),
    "the client itself": (lying(SHARES, neighbours=[0, 1, 2, 3]), "which are others"),
    "other neighbours": (lying(SHARES, neighbours=[6, 7, 8, 9]), "which are others"),
    "few clients, and so a low threshold": (
        lying(SHARES, clients=3),
        "each of 3 clients must have 2 neighbours, got ",
    ),
    "no other client": (lying(SHARES, clients=1, neighbours=[]), "must have 1 neighbours"),
    "survivors below the threshold": (lying(REVEAL, survivors=[0, 1]), "must be left"),
    "a survivor without shares": (lying(REVEAL, survivors=[0, 1, 2, 6]), "its own sum"),
    "the keys of another round": (lying(MASKED, round=4), "of another round"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_is_refused(lie: str, nodes: Nodes) -> None:
    nodes.change, why = LIES[lie]
    answers = ask(nodes, 5)
    assert why in nodes.refusals[0]
    assert "there is no sum" in str(answers[SUM])


def test_a_round_is_repeated_for_the_same_sum_alone(nodes: Nodes) -> None:
    nodes.lost = {(MASKED, 4)}
    first = summed(ask(nodes, 5))
    assert np.array_equal(summed(ask(nodes, 5)), first)
    nodes.lost = {(MASKED, 3)}
    assert "there is no sum" in str(ask(nodes, 5)[SUM])
    assert "again of the same sum" in nodes.refusals[0]
    assert np.array_equal(summed(ask(nodes, 5, 4)), total([0, 1, 2, 4]))
    nodes.lost = set()
    assert "there is no sum" in str(ask(nodes, 5, 3)[SUM]), "a later round makes none forgotten"


def test_a_round_that_revealed_nothing_may_have_another_sum(nodes: Nodes) -> None:
    nodes.lost = {(MASKED, client) for client in (2, 3, 4)}
    assert "3 of 5 clients must go on" in str(ask(nodes, 5)[SUM])
    nodes.lost = set()
    assert np.array_equal(summed(ask(nodes, 5)), total(range(5)))


def test_a_round_before_those_that_the_job_can_go_back_to_is_refused(nodes: Nodes) -> None:
    summed(ask(nodes, 5, 3))
    summed(ask(nodes, 5, 9, oldest=6))
    assert "there is no sum" in str(ask(nodes, 5, 3)[SUM])
    assert "before those that the job can go back to" in nodes.refusals[0]


def test_no_update_is_sent_as_it_is_in_a_job_with_sums_or_where_the_owner_forbids_it(
    nodes: Nodes,
) -> None:
    here, letter = Place(0, nodes.folders[0]), Letter({"what": "train", "job": "job"})
    check_open(letter, here)
    with pytest.raises(Refused, match="in a sum alone"):
        check_open(letter, replace(here, only_sums=True))
    summed(ask(nodes, 5))
    with pytest.raises(Refused, match="in a sum alone"):
        check_open(letter, here)
    check_open(Letter({"what": "evaluate", "job": "job"}), here)
    check_open(Letter({"what": "train", "job": "another job"}), here)


def test_forged_keys_are_refused_where_the_owner_has_listed_all_nodes(nodes: Nodes) -> None:
    def forge(client: int, letter: Letter) -> Letter:
        if letter.facts["secure"] != SHARES:
            return letter
        name = min(letter.parts)
        forged = bytes(32) + letter.parts[name][32:]
        return Letter(letter.facts, {**letter.parts, name: forged})

    def sign_as_other_node(client: int, letter: Letter) -> Letter:
        if letter.facts["secure"] != SHARES:
            return letter
        name = max(letter.parts, key=int)
        other = nodes.folders[(int(name) + 1) % 2]
        keys = letter.parts[name][:64]
        signed = keys + sign(other, "job 3", int(name), keys)
        return Letter(letter.facts, {**letter.parts, name: signed})

    introduce(nodes.folders)
    assert np.array_equal(summed(ask(nodes, 5)), total(range(5)))
    for change in (forge, sign_as_other_node):
        nodes.change = change
        assert "there is no sum" in str(ask(nodes, 5)[SUM])
        assert "not signed by its node" in nodes.refusals[0]


def test_without_the_list_the_server_is_believed(nodes: Nodes) -> None:
    def unsign(client: int, letter: Letter) -> Letter:
        if letter.facts["secure"] != SHARES:
            return letter
        unsigned = {name: part[:64] + bytes(64) for name, part in letter.parts.items()}
        return Letter(letter.facts, unsigned)

    nodes.change = unsign
    assert np.array_equal(summed(ask(nodes, 5)), total(range(5)))
