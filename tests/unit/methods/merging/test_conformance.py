"""The laws that every merge keeps; a new merge is one line of ``MERGES``.

A merge of one's own is held to them by
``OWN_MERGE=my_module:my_merge PYTHONPATH=its/folder ./run-local.sh pytest`` with this file.
"""

import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import Tensor

from scaling_fl.composition.own import find_callable
from scaling_fl.conformance.rounds import (
    LAYOUT,
    SIZE,
    Sent,
    merged,
    merged_on_workers,
    some_updates,
)
from scaling_fl.methods.merging.low_rank import flexlora
from scaling_fl.methods.merging.masks import consensus_mask, dare, dare_ties, magnitude_mask
from scaling_fl.methods.merging.means import mean, mean_of_senders, task_arithmetic
from scaling_fl.methods.merging.merge import Merge, Round, Updates
from scaling_fl.methods.merging.moving import exact, stack
from scaling_fl.methods.merging.robust import krum, median, multikrum, trimmed_mean
from scaling_fl.methods.merging.signs import ties
from scaling_fl.methods.pairs import pairs_of


def coordinate_median() -> Merge:
    """A user's own merge, as an example: the median of every coordinate, by ``columns``."""

    def merge(updates: Updates, round: Round) -> Tensor:
        blocks: Iterator[Tensor] = round.columns(updates, 7)
        return torch.cat([block.median(0).values for block in blocks])

    return merge


def largest_client() -> Merge:
    """Another one: the update of the client whose norm is the largest, by ``gather``."""

    def merge(updates: Updates, round: Round) -> Tensor:
        norms = {u.client: u.vector.norm().reshape(1) for u in updates.again()}
        largest = float(round.gather(norms.items()).max())
        chosen = (u for u in updates.again() if float(u.vector.norm()) == largest)
        return round.mean_over_senders((u.vector, u.share, None) for u in chosen)

    return merge


@dataclass(frozen=True)
class Laws:
    """What a merge promises beyond the laws that hold for all."""

    make: Callable[[], Merge]
    of_equals: Callable[[Tensor], Tensor] = lambda vector: vector
    """What equal updates come to: themselves, or what the merge leaves of each."""
    is_linear: bool = False
    """A client whose update is zero counts, with its share."""
    is_random: bool = False
    """Equal updates are not merged to themselves: each loses other coordinates."""
    of_factors: bool = False
    """The merge averages products B A, whose factors are not unique: products are compared."""


def trimmed(vector: Tensor, density: float) -> Tensor:
    kept = torch.topk(vector.abs(), int(SIZE * density)).indices
    return torch.zeros(SIZE).index_copy(0, kept, vector[kept])


MERGES: dict[str, Laws] = {
    "mean": Laws(mean, is_linear=True),
    "mean_of_senders": Laws(mean_of_senders, is_linear=True),
    "ties": Laws(partial(ties, density=0.2), partial(trimmed, density=0.2)),
    "task_arithmetic": Laws(partial(task_arithmetic, scale=0.5), lambda vector: 0.5 * vector, True),
    "dare": Laws(partial(dare, drop=0.5), is_linear=True, is_random=True),
    "dare_ties": Laws(partial(dare_ties, drop=0.5, density=0.2), is_random=True),
    "magnitude_mask": Laws(
        partial(magnitude_mask, density=0.2), partial(trimmed, density=0.2), is_linear=True
    ),
    "consensus_mask": Laws(partial(consensus_mask, threshold=0.4, agreeing=2)),
    "alternate": Laws(mean, is_linear=True),
    "share_a": Laws(mean, is_linear=True),
    "flexlora": Laws(flexlora, is_linear=True, of_factors=True),
    "exact": Laws(exact, is_linear=True, of_factors=True),
    "stack": Laws(stack, is_linear=True, of_factors=True),
    "median": Laws(median),
    "trimmed_mean": Laws(partial(trimmed_mean, trim=0.2)),
    "krum": Laws(partial(krum, byzantine=1)),
    "multikrum": Laws(partial(multikrum, byzantine=1, selected=3)),
    "a median of one's own": Laws(coordinate_median),
    "one's own by gathering": Laws(largest_client),
}
if own := os.environ.get("OWN_MERGE"):
    MERGES = {own: Laws(find_callable(own, "OWN_MERGE"))}


def are_close(name: str, found: Tensor, expected: Tensor, *, rtol: float, atol: float) -> bool:
    if not MERGES[name].of_factors:
        return torch.allclose(found, expected, rtol=rtol, atol=atol)
    pairs = [(products(found), products(expected)), (found[HEAD:SIZE], expected[HEAD:SIZE])]
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs)


def products(vector: Tensor) -> Tensor:
    """Return the product of each pair, with what the base beside it moved by."""
    found = torch.cat([(p.b_of(vector) @ p.a_of(vector)).flatten() for p in pairs_of(LAYOUT)])
    return found + vector[SIZE:] if len(vector) > SIZE else found


HEAD = LAYOUT.offsets[-2]
SEEDS = range(5)
each_merge = pytest.mark.parametrize("name", sorted(MERGES))


@each_merge
def test_the_order_of_the_clients_changes_no_bit(name: str) -> None:
    for seed in SEEDS:
        updates = some_updates(6, seed)
        shuffled = random.Random(seed).sample(updates, 6)
        assert torch.equal(merged(MERGES[name].make, shuffled), merged(MERGES[name].make, updates))


@each_merge
@pytest.mark.parametrize("density", [None, 0.4])
def test_the_place_of_the_clients_changes_no_bit(name: str, density: float | None) -> None:
    """On two to four workers, of which one has no client; whatever part of it clients send."""
    for seed in SEEDS:
        updates = some_updates(6, seed, density=density)
        alone = merged(MERGES[name].make, updates)
        rng = random.Random(seed)
        placement = [rng.randrange(3) for _ in updates]
        for vector in merged_on_workers(MERGES[name].make, updates, placement):
            assert torch.equal(vector, alone)


@each_merge
def test_equal_clients_are_a_fixed_point(name: str) -> None:
    for seed in SEEDS:
        shares = [one.share for one in some_updates(5, seed)]
        vector = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))
        equal = [Sent(client, vector, share) for client, share in enumerate(shares)]
        expected = MERGES[name].of_equals(vector)
        found = merged(MERGES[name].make, equal)
        assert are_close(name, found, expected, rtol=2e-7, atol=0) != MERGES[name].is_random


@each_merge
def test_twice_the_updates_are_twice_the_merge(name: str) -> None:
    """To the bit: to double a number changes none of its digits."""
    for seed in SEEDS:
        updates = some_updates(5, seed)
        twice = [replace(one, vector=2 * one.vector) for one in updates]
        once, doubled = merged(MERGES[name].make, updates), merged(MERGES[name].make, twice)
        if MERGES[name].of_factors:  # both factors are twice as large
            assert torch.allclose(products(doubled), 4 * products(once), rtol=1e-5, atol=1e-7)
            assert torch.allclose(doubled[HEAD:SIZE], 2 * once[HEAD:SIZE], rtol=2e-7, atol=2.0**-50)
        else:
            assert torch.allclose(doubled, 2 * once, rtol=2e-7, atol=2.0**-50)


@each_merge
def test_a_client_that_did_not_move_moves_nothing(name: str) -> None:
    zero = Sent(3, torch.zeros(SIZE), 0.5)
    alone = [replace(zero, client=client, share=0.25) for client in range(4)]
    still = merged(MERGES[name].make, alone)
    assert are_close(name, still, torch.zeros(SIZE), rtol=0, atol=0)
    if MERGES[name].is_linear:
        others = [replace(one, share=one.share / 2) for one in some_updates(3, 1)]
        halved = merged(MERGES[name].make, [*others, zero])
        expected = merged(MERGES[name].make, some_updates(3, 1))
        if MERGES[name].of_factors:
            expected *= torch.where(torch.arange(len(expected)) < HEAD, 0.5**0.5, 0.5)
        else:
            expected *= 0.5
        assert are_close(name, halved, expected, rtol=1e-6, atol=1e-9)


@each_merge
@pytest.mark.parametrize("how", ["its loss", "its update"])
def test_a_client_that_diverged_is_as_if_it_had_not_been_there(name: str, how: str) -> None:
    for seed in SEEDS:
        updates = some_updates(4, seed)
        share = 1.0 - updates[3].share
        without = [replace(one, share=one.share / share) for one in updates[:3]]
        bad = updates[3].vector.clone()
        bad[5] = math.inf
        lost = replace(updates[3], **({"loss": math.nan} if how == "its loss" else {"vector": bad}))
        found = merged(MERGES[name].make, [*updates[:3], lost])
        expected = merged(MERGES[name].make, without)
        assert are_close(name, found, expected, rtol=1e-6, atol=1e-9)


@each_merge
def test_a_merge_keeps_nothing_from_round_to_round(name: str) -> None:
    """So that a resumed run goes on with the same bits."""
    merge = MERGES[name].make()
    for seed in (1, 2, 1):
        assert torch.equal(
            merged(lambda: merge, some_updates(4, seed)),
            merged(MERGES[name].make, some_updates(4, seed)),
        )
