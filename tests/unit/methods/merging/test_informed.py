"""Fisher and RegMean: what they must come to in closed form, and dense references in fp64."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scaling_fl.conformance.rounds import LAYOUT, LINEARS, MODEL, SIZE, Sent, merged, some_updates
from scaling_fl.learning.statistics import grams
from scaling_fl.learning.task import Batch, BatchLoss
from scaling_fl.methods.merging.informed import FLOOR, fisher, regmean
from scaling_fl.methods.merging.means import mean


def with_fisher(one: Sent, information: Tensor, exponent: float = 0.0) -> Sent:
    payload = torch.cat([torch.tensor([exponent]), information.float()])
    return replace(one, extras={"fisher": payload})


def with_grams(one: Sent, seed: int, num_rows: int = 30) -> tuple[Sent, list[Tensor]]:
    """Give a client inputs of each layer; returns their Gram matrices in fp64, too."""
    rng = torch.Generator().manual_seed(seed)
    found, payload = [], []
    for number, linear in enumerate(LINEARS):
        rows = torch.randn(num_rows, linear.num_in, generator=rng) * 2.0 ** (seed % 3 + number)
        gram = rows.double().T @ rows.double() / num_rows
        above = torch.triu_indices(*gram.shape)
        exponent = float(torch.frexp(gram.trace()).exponent)
        payload += [torch.tensor([exponent]), (gram[above[0], above[1]] * 2**-exponent).float()]
        found.append(gram)
    return replace(one, extras={"grams": torch.cat(payload)}), found


@pytest.mark.parametrize("seed", range(4))
def test_of_gaussians_fisher_is_the_mean_weighted_by_precision(seed: int) -> None:
    """The product of Gaussians, weighted by shares; exponents stand for many powers of ten."""
    rng = torch.Generator().manual_seed(seed)
    updates, above, below = [], torch.zeros(SIZE).double(), torch.zeros(SIZE).double()
    for one in some_updates(4, seed):
        precision = (torch.rand(SIZE, generator=rng).double() + 0.01) * 4.0 ** (one.client + 20)
        exponent = float(torch.frexp(precision.norm()).exponent)
        updates.append(with_fisher(one, precision * 2**-exponent, exponent))
        above += one.share * precision * one.vector.double()
        below += one.share * precision
    found = merged(lambda: fisher(normalise=False), updates).double()
    assert torch.allclose(found, above / below, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_normalised_information_is_divided_by_its_norm(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    updates, above, below = [], torch.zeros(SIZE).double(), torch.zeros(SIZE).double()
    for one in some_updates(4, seed):
        information = torch.rand(SIZE, generator=rng).double() * 0.1
        updates.append(with_fisher(one, information, exponent=30.0 * one.client))
        weight = one.share * (information / information.norm() + FLOOR)
        above += weight * one.vector.double()
        below += weight
    found = merged(lambda: fisher(normalise=True), updates).double()
    assert torch.allclose(found, above / below, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("normalise", [True, False])
def test_where_no_client_knows_anything_fisher_is_the_mean(normalise: bool) -> None:
    updates = [with_fisher(one, torch.zeros(SIZE)) for one in some_updates(4, 1)]
    found = merged(lambda: fisher(normalise), updates)
    assert torch.allclose(found, merged(mean, updates), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_fisher_takes_what_one_client_alone_knows(seed: int) -> None:
    updates = some_updates(3, seed)
    places = torch.arange(SIZE) % 3
    told = [with_fisher(one, (places == one.client) / 8) for one in updates]
    found = merged(lambda: fisher(normalise=True), told)
    expected = torch.stack([one.vector for one in updates])[places, torch.arange(SIZE)]
    assert torch.allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("off_diagonal", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("seed", range(3))
def test_regmean_is_that_of_a_dense_computation(seed: int, off_diagonal: float) -> None:
    """With a client that is lost; its share counts for the others."""
    updates, matrices = zip(
        *(with_grams(one, seed + one.client) for one in some_updates(4, seed)), strict=True
    )
    updates = (replace(updates[0], loss=float("nan")), *updates[1:])
    found = merged(lambda: regmean(off_diagonal), list(updates)).double()
    total = sum(one.share for one in updates[1:])
    expected = sum(one.vector.double() * (one.share / total) for one in updates[1:])
    assert isinstance(expected, Tensor)
    for number, (name, linear) in enumerate(zip(LAYOUT.names, LINEARS, strict=True)):
        left, right = torch.zeros(linear.num_in, linear.num_in).double(), torch.zeros(()).double()
        for one, own in zip(updates[1:], matrices[1:], strict=True):
            gram = own[number] * off_diagonal + torch.diag(own[number].diag()) * (1 - off_diagonal)
            left += one.share * gram
            right = right + one.share * gram @ LAYOUT.views(one.vector.double())[name].T
        LAYOUT.views(expected)[name].copy_(torch.linalg.solve(left, right).T)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def of_the_head(model: Any, batch: Batch) -> BatchLoss:
    outputs = model["head"](batch.tensors["x"])
    return BatchLoss(outputs.square().mean(), len(batch), {})


@pytest.mark.parametrize("sizes", [(20, 20), (12, 60), (15, 30, 45)])
def test_regmean_of_least_squares_is_least_squares_on_all_data(sizes: tuple[int, ...]) -> None:
    """Each client fits its own points; merged, they are the fit to the points of all."""
    rng = torch.Generator().manual_seed(len(sizes))
    inputs = [
        torch.randn(size, 9, generator=rng).double() * (2 + i) for i, size in enumerate(sizes)
    ]
    targets = [torch.randn(size, 2, generator=rng).double() for size in sizes]
    updates = []
    for client, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        vector = torch.zeros(SIZE)
        LAYOUT.views(vector)["head.weight"].copy_(torch.linalg.lstsq(x, y).solution.T)
        examples = [Batch({"x": x[i : i + 1].float()}, np.array([i])) for i in range(len(x))]
        extras = {"grams": grams(MODEL).compute(MODEL, of_the_head, examples)}
        updates.append(Sent(client, vector, len(x) / sum(sizes), extras=extras))
    pooled = torch.linalg.lstsq(torch.cat(inputs), torch.cat(targets)).solution
    found = LAYOUT.views(merged(lambda: regmean(1.0), updates))["head.weight"].double()
    assert torch.allclose(found.T, pooled, rtol=1e-4, atol=1e-6)
    averaged = LAYOUT.views(merged(mean, updates))["head.weight"].double()
    assert not torch.allclose(averaged.T, pooled, rtol=0.1)


def test_where_no_client_has_inputs_regmean_is_the_mean() -> None:
    """Of all directions of the head, clients have seen the first two inputs alone."""
    updates = []
    for one in some_updates(3, 2):
        rng = torch.Generator().manual_seed(one.client)
        x = torch.randn(1, 20, 9, generator=rng) * (torch.arange(9) < 2)
        examples = [Batch({"x": x}, np.array([0]))]
        extras = {"grams": grams(MODEL).compute(MODEL, of_the_head, examples)}
        updates.append(replace(one, extras=extras))
    found, plain = merged(lambda: regmean(0.9), updates), merged(mean, updates)
    head, plain_head = (LAYOUT.views(each)["head.weight"] for each in (found, plain))
    assert torch.equal(head[:, 2:], plain_head[:, 2:])
    assert not torch.allclose(head[:, :2], plain_head[:, :2], rtol=1e-2)
    start = LAYOUT.offsets[-2]
    assert torch.equal(found[:start], plain[:start])
