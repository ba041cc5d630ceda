"""A secure sum is the sum to the last bit, whoever drops out, and shows nothing else."""

import itertools
import json
from collections.abc import Collection

import numpy as np
import pytest

from scaling_fl.federation.neighbours import SEALED_SHARES, ring, threshold
from scaling_fl.flower.secure_sum import Integers, Masker, Refused, stream, unmask

CONTEXT, SIZE = "job round 3", 257


def vectors(num_clients: int) -> list[Integers]:
    rng = np.random.default_rng(num_clients)
    edge = np.iinfo(np.int64)
    return [rng.integers(edge.min, edge.max, SIZE, dtype=np.int64) for _ in range(num_clients)]


def stored(masker: Masker) -> Masker:
    """Keep a masker as a node does between two messages."""
    return Masker.from_json(json.loads(json.dumps(masker.to_json())))


class Trial:
    """A sum in which some clients drop out after each phase."""

    def __init__(
        self,
        num_clients: int,
        *,
        before_shares: Collection[int] = (),
        before_mask: Collection[int] = (),
        before_sum: Collection[int] = (),
    ) -> None:
        self.near = ring(range(num_clients), CONTEXT)
        self.maskers = {n: Masker(n, CONTEXT) for n in range(num_clients) if n not in before_shares}
        self.keys = {n: masker.public_keys() for n, masker in self.maskers.items()}
        self.sent = {n: self.share(n) for n in self.maskers}
        self.maskers = {n: stored(masker) for n, masker in self.maskers.items()}
        self.sharing = [n for n in self.maskers if n not in before_mask]
        self.masked = {}
        for n in self.sharing:
            vector = vectors(num_clients)[n].copy()
            received = {o: self.sent[o][n] for o in self.near[n] if o in self.sharing}
            self.maskers[n].mask(vector, received)
            self.masked[n] = vector
        self.survivors = [n for n in self.sharing if n not in before_sum]

    def share(self, client: int) -> dict[int, bytes]:
        near = self.near[client]
        return self.maskers[client].shares(near, {n: self.keys[n] for n in near if n in self.keys})

    def left(self, client: int) -> list[int]:
        return [n for n in (client, *self.near[client]) if n in self.survivors]

    def total(self, *, silent: Collection[int] = ()) -> Integers:
        total: Integers = sum((self.masked[n] for n in self.survivors), np.zeros(SIZE, np.int64))
        revealed = {
            n: stored(self.maskers[n]).reveal(self.left(n))
            for n in self.survivors
            if n not in silent
        }
        unmask(total, CONTEXT, self.keys, self.near, self.survivors, self.sharing, revealed)
        return total

    def expected(self, num_clients: int) -> Integers:
        every = vectors(num_clients)
        return sum((every[n] for n in self.survivors), np.zeros(SIZE, np.int64))


@pytest.mark.parametrize("num_clients", [2, 3, 5, 8, 25])
def test_the_masks_leave_the_sum(num_clients: int) -> None:
    trial = Trial(num_clients)
    assert np.array_equal(trial.total(), trial.expected(num_clients))


@pytest.mark.parametrize(
    ("before_mask", "before_sum", "silent"),
    [
        (early, late, silent)
        for early, late, silent in itertools.product([(), (0,), (4,)], [(), (1,), (3,)], [(), (2,)])
        if 5 - len(early) - len(late) - len(silent) >= threshold(4)
    ],
)
def test_clients_that_drop_out_in_any_phase_leave_the_sum_of_the_others(
    before_mask: tuple[int, ...], before_sum: tuple[int, ...], silent: tuple[int, ...]
) -> None:
    trial = Trial(5, before_mask=before_mask, before_sum=before_sum)
    assert np.array_equal(trial.total(silent=silent), trial.expected(5))


def test_among_neighbours_drop_outs_in_all_phases_leave_the_sum_of_the_others() -> None:
    trial = Trial(30, before_shares=[3, 20], before_mask=[7], before_sum=[11, 12])
    assert {len(near) for near in trial.near.values()} == {20}
    assert np.array_equal(trial.total(silent=[1]), trial.expected(30))


def test_shares_are_for_neighbours_alone_and_as_long_as_foretold() -> None:
    trial = Trial(30)
    assert {n: sorted(sent) for n, sent in trial.sent.items()} == trial.near
    assert {len(each) for sent in trial.sent.values() for each in sent.values()} == {SEALED_SHARES}


def test_too_few_that_go_on_end_in_no_sum() -> None:
    trial = Trial(5, before_sum=(0, 1))
    with pytest.raises(Refused, match=r"3 of client 0 and its neighbours must reveal .* and 2 did"):
        trial.total(silent=(2,))
    with pytest.raises(Refused, match="must be left"):
        Trial(5, before_shares=(0, 1, 2))
    with pytest.raises(Refused, match="must be left"):
        Trial(5, before_mask=(0, 1, 2))
    with pytest.raises(Refused, match="must be left"):
        Trial(5, before_sum=(0, 1, 2)).total()


def test_nobody_is_unmasked_by_asking_twice() -> None:
    trial = Trial(4)
    first = trial.maskers[0].reveal([0, 1, 2, 3])
    assert trial.maskers[0].reveal([0, 1, 2, 3]) == first
    with pytest.raises(Refused, match="reveals once"):
        trial.maskers[0].reveal([0, 1, 2])  # which would give the key of 3 beside its seed
    with pytest.raises(Refused, match="reveals once"):
        stored(trial.maskers[0]).reveal([0, 1, 2])
    with pytest.raises(Refused, match="its own sum"):
        trial.maskers[1].reveal([0, 2, 3])
    with pytest.raises(Refused, match="masks one vector"):
        trial.maskers[1].mask(np.zeros(SIZE, np.int64), {0: b"", 2: b"", 3: b""})
    with pytest.raises(Refused, match="one set of neighbours"):
        trial.share(1)


def test_a_repeated_round_reveals_the_same_sum_or_none() -> None:
    first = Trial(4, before_sum=[3])
    first.total()
    first.maskers[0].reveal(first.left(0))
    told = first.maskers[0].told
    for before_sum, is_same in (([3], True), ([], False)):
        again = Trial(4, before_sum=before_sum)
        again.maskers[0].told = told
        if is_same:
            assert again.maskers[0].reveal(again.left(0)).keys() == {0, 1, 2, 3}
            continue
        with pytest.raises(Refused, match="or again of the same sum"):
            again.maskers[0].reveal(again.left(0))


def test_a_masked_vector_tells_nothing_of_the_vector() -> None:
    zeros = [Trial(3).masked[1] - vectors(3)[1] for _ in range(2)]
    assert not np.array_equal(*zeros)
    for mask in zeros:
        bits = np.unpackbits(mask.view(np.uint8))
        assert abs(bits.mean() - 0.5) < 0.02


def test_masks_of_two_rounds_are_not_related() -> None:
    key = bytes(16)
    assert not np.array_equal(stream(key, "round 1", SIZE), stream(key, "round 2", SIZE))
    assert np.array_equal(stream(key, "round 1", SIZE)[:9], stream(key, "round 1", 9))


def test_a_share_that_was_changed_is_refused() -> None:
    trial = Trial(3, before_sum=(2,))
    sealed = bytearray(trial.maskers[0].received[1])
    sealed[-1] ^= 1
    trial.maskers[0].received[1] = bytes(sealed)
    with pytest.raises(Refused, match="damaged"):
        trial.maskers[0].reveal([0, 1])
    revealed = {n: Trial(3, before_sum=(2,)).maskers[n].reveal([0, 1]) for n in (0, 1)}
    total = np.zeros(SIZE, np.int64)
    with pytest.raises(Refused, match="do not fit together"):
        unmask(total, CONTEXT, trial.keys, trial.near, [0, 1], [0, 1, 2], revealed)
