"""Merges by coordinates on products, against dense matrices; a change of basis changes nothing."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from scaling_fl.composition.own import find_callable
from scaling_fl.config.merges import MERGES, merges_by_coordinates
from scaling_fl.conformance.merge_laws import MERGE_LAWS
from scaling_fl.conformance.models import BESIDE, products
from scaling_fl.conformance.rounds import LAYOUT, SIZE, Sent, merge_on, merged, some_updates
from scaling_fl.conformance.trial import judge
from scaling_fl.conformance.tried_merge import TriedMerge
from scaling_fl.conformance.workers import on_workers
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.methods.merging.merge import Merge
from scaling_fl.methods.merging.products import on_products
from scaling_fl.methods.merging.robust import median
from scaling_fl.methods.pairs import pairs_of

SCALE = 2.0
START = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))


def made(name: str) -> Callable[[], Merge]:
    """Make a merge of the table, on products."""
    row = MERGES[name]
    options = {key: option.default for key, option in row.options.items()} | dict(row.tried_with)
    make = partial(find_callable(row.make, "the merge"), **options)
    return lambda: on_products(make(), SCALE)


def turned(one: Sent, seed: int) -> Sent:
    """Give a client, which began from zero, another basis of the same products."""
    vector, rng = one.vector.clone(), torch.Generator().manual_seed(seed)
    for pair in pairs_of(LAYOUT):
        basis = torch.randn(2, 2, generator=rng, dtype=torch.float64) + 2 * torch.eye(2)
        pair.b_of(vector).copy_(pair.b_of(vector).double() @ basis)
        pair.a_of(vector).copy_(torch.linalg.inv(basis) @ pair.a_of(vector).double())
    return replace(one, vector=vector)


def gap(make: Callable[[], Merge]) -> float:
    """Return by how much of the products' norm a change of the clients' bases changes them."""
    updates = some_updates(5, 2)
    others = [turned(one, one.client) for one in updates]
    found = [
        torch.cat([product.flatten() for product in products(merged(make, each)).values()])
        for each in (updates, others)
    ]
    return float((found[0] - found[1]).norm() / found[0].norm())


@pytest.mark.parametrize("name", merges_by_coordinates())
def test_a_change_of_basis_changes_the_merge_of_factors_alone(name: str) -> None:
    row = MERGES[name]
    options = {key: option.default for key, option in row.options.items()} | dict(row.tried_with)
    assert gap(made(name)) < 1e-4
    assert gap(partial(find_callable(row.make, "the merge"), **options)) > 0.05


def test_the_median_of_products_is_that_of_dense_matrices() -> None:
    updates = some_updates(5, 3)
    after, _ = merge_on(SingleExchange(1), made("median")(), updates, updates, START)
    before = products(START)
    for name, found in products(after).items():
        changes = [products(START + one.vector)[name] - before[name] for one in updates]
        u, values, vt = torch.linalg.svd(before[name] + torch.stack(changes).median(0).values)
        assert torch.allclose(found, u[:, :2] * values[:2] @ vt[:2], atol=1e-5)
    beside = torch.stack([one.vector for one in updates]).median(0).values
    assert torch.allclose(after[BESIDE], (START + beside)[BESIDE], atol=1e-6)


@pytest.mark.parametrize("name", ["ties", "median", "krum"])
def test_the_laws_of_rounds_hold(name: str) -> None:
    kept = ("order", "placement", "still clients", "lost client", "tiers", "resume")
    laws = [law for law in MERGE_LAWS if law.name in kept]
    assert len(laws) == len(kept)
    verdicts = judge(laws, TriedMerge(made(name)), num_cases=3, shrink=False)
    assert [verdict for verdict in verdicts if not verdict.is_good] == []


def test_two_and_three_workers_come_to_the_same_bits() -> None:
    updates = some_updates(5, 3)
    alone, _ = merge_on(SingleExchange(1), on_products(median(), SCALE), updates, updates, START)

    def work(exchange: Exchange) -> Tensor:
        mine = [one for one in updates if one.client % exchange.size == exchange.rank]
        return merge_on(exchange, on_products(median(), SCALE), mine, updates, START)[0]

    for size in (2, 3):
        assert all(torch.equal(vector, alone) for vector in on_workers(size, work))
