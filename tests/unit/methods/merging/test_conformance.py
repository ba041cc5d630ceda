"""The laws of merges, on every row of the table, on examples of users, and on wrong merges."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scaling_fl.config.merges import MERGES, merges_by_coordinates
from scaling_fl.conformance.merge_laws import MERGE_LAWS
from scaling_fl.conformance.trial import BROKEN, DECLARED, KEPT, UNBROKEN, judge
from scaling_fl.conformance.tried_merge import TriedMerge, tried_merge
from scaling_fl.methods.merging.means import mean
from scaling_fl.methods.merging.merge import Merge, Round, Updates
from scaling_fl.methods.merging.products import on_products


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for each other on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", MERGES)
def test_a_merge_of_the_table_keeps_the_laws_but_for_those_that_it_declares(name: str) -> None:
    verdicts = judge(MERGE_LAWS, tried_merge(name), num_cases=5, shrink=False)
    assert [verdict for verdict in verdicts if not verdict.is_good] == []
    declared = {verdict.law for verdict in verdicts if verdict.outcome == DECLARED}
    assert declared == MERGES[name].breaks.keys()


def test_a_law_without_a_meaning_for_a_merge_is_left_out() -> None:
    """In a round of one factor, no client has a basis of its own."""
    laws = [law for law in MERGE_LAWS if law.name in ("gauge", "order")]
    tried = {name: replace(tried_merge(name), breaks={}) for name in ("exact", "alternate")}
    found = {name: judge(laws, each, num_cases=1) for name, each in tried.items()}
    assert [verdict.law for verdict in found["exact"]] == ["order", "gauge"]
    assert [verdict.law for verdict in found["alternate"]] == ["order"]


@pytest.mark.parametrize("name", merges_by_coordinates())
def test_on_products_no_basis_of_the_factors_matters(name: str) -> None:
    tried = tried_merge(name)
    on = TriedMerge(lambda: on_products(tried.make(), 1.0))
    (verdict,) = judge([law for law in MERGE_LAWS if law.name == "gauge"], on, num_cases=30)
    assert verdict.outcome == KEPT


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


def forgets_weights() -> Merge:
    def merge(updates: Updates, round: Round) -> Tensor:
        return round.mean_over_senders((u.vector, 2.0**-20, None) for u in updates.once())

    return merge


def averages_nan() -> Merge:
    """Divides by a norm, which is 0 where a client did not move."""

    def merge(updates: Updates, round: Round) -> Tensor:
        vectors = {u.client: u.vector / u.vector.norm() * u.vector.norm() for u in updates.again()}
        rows = round.gather(vectors.items())
        shares = torch.tensor(list(round.shares.values()))
        return (rows * shares[:, None]).sum(0)

    return merge


def counts_lost_clients() -> Merge:
    """Takes shares to add up to 1, also when a client is left out."""

    def merge(updates: Updates, round: Round) -> Tensor:
        rows = round.gather((u.client, u.vector * u.share) for u in updates.again())
        return rows.double().sum(0).float()

    return merge


def depends_on_arrival() -> Merge:
    """Adds in the order in which clients arrive at this worker."""

    def merge(updates: Updates, round: Round) -> Tensor:
        mine = sum((u.vector * u.share for u in updates.again()), torch.zeros_like(round.start))
        return round.total([(mine, 1.0)])

    return merge


def sends_back_a_transpose() -> Merge:
    def merge(updates: Updates, round: Round) -> Tensor:
        update = round.total((u.vector, u.share) for u in updates.once())
        for pair in round.pairs:
            update[pair.b] = pair.b_of(update).T.flatten()
        return update

    return merge


def remembers() -> Merge:
    """Has momentum of its own, which a resumed run would not have."""
    before: list[Tensor] = []

    def merge(updates: Updates, round: Round) -> Tensor:
        update = round.total((u.vector, u.share) for u in updates.once())
        update += 0.5 * sum(before)
        before[:] = [update.clone()]
        return update

    return merge


def asks_only_some_workers() -> Merge:
    def merge(updates: Updates, round: Round) -> Tensor:
        mine = list(updates.again())
        if mine:
            round.total((u.vector, u.share) for u in mine)
        return torch.zeros_like(round.start)

    return merge


def squares_the_shares_of_a_tier() -> Merge:
    return lambda updates, round: round.total(
        (u.vector, u.share**2 if u.tier else u.share) for u in updates.once()
    )


def returns_doubles() -> Merge:
    return lambda updates, round: round.start.double()


def writes_to_the_start() -> Merge:
    return lambda updates, round: round.start.add_(1.0)


ALIKE = dict.fromkeys(("weights", "zero client"), "all clients count alike")
APART = {"gauge": "A and B are merged apart"}
GATHERED = {"memory": "the updates of all clients are gathered"}


@pytest.mark.parametrize(
    ("make", "breaks"),
    [
        (coordinate_median, APART | ALIKE | GATHERED),
        (largest_client, APART | {"zero client": "one client alone counts"}),
    ],
)
def test_an_example_keeps_the_laws_too(make: Callable[[], Merge], breaks: dict[str, str]) -> None:
    verdicts = judge(MERGE_LAWS, TriedMerge(make, breaks), num_cases=5, shrink=False)
    assert [verdict for verdict in verdicts if not verdict.is_good] == []


@pytest.mark.parametrize(
    ("make", "law", "said"),
    [
        (forgets_weights, "weights", r"head\[0,0\] is .*, and must be"),
        (averages_nan, "still clients", "the merged update is not finite"),
        (counts_lost_clients, "lost client", "and must be"),
        (depends_on_arrival, "order", "in ascending order"),
        (sends_back_a_transpose, "layers", r"\[.*\] moved, and no client moved it"),
        (remembers, "resume", "of a merge that was not used before"),
        (asks_only_some_workers, "placement", "do not make the same calls|it raises"),
        (squares_the_shares_of_a_tier, "tiers", "and must be"),
        (returns_doubles, "one client", "returns torch.float64, and must return a tensor of"),
        (writes_to_the_start, "one client", "the merge writes to round.start"),
    ],
)
def test_a_wrong_merge_is_told_with_a_small_case(
    make: Callable[[], Merge], law: str, said: str
) -> None:
    tried = TriedMerge(make)
    (verdict,) = judge([one for one in MERGE_LAWS if one.name == law], tried, num_cases=20)
    assert verdict.outcome == BROKEN
    assert re.search(said, verdict.found)
    clients = [line for line in verdict.example.splitlines() if line.startswith("  client ")]
    assert 1 <= len(clients) <= 5


def test_a_law_that_is_declared_must_exist_and_must_be_broken() -> None:
    (order, *_) = MERGE_LAWS
    (verdict,) = judge([order], TriedMerge(mean, {"order": "no reason"}), num_cases=2)
    assert (verdict.outcome, verdict.is_good) == (UNBROKEN, False)
    with pytest.raises(ValueError, match="there is no law odour"):
        judge(MERGE_LAWS, TriedMerge(mean, {"odour": "no reason"}), num_cases=2)
