"""What each law of merges checks on a case; each function raises ``Broken``."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scaling_fl.conformance.cases import Case, parts, tenths
from scaling_fl.conformance.ledger import Ledger
from scaling_fl.conformance.models import LAYERS, Broken, check_bits, unmoved
from scaling_fl.conformance.rounds import SIZE, merge_on
from scaling_fl.conformance.tried_merge import HELD, HOLDING, ZERO, TriedMerge
from scaling_fl.conformance.workers import on_workers
from scaling_fl.core.exchange import Exchange
from scaling_fl.methods.merging.merge import Round, Updates
from scaling_fl.methods.wire.direction import PLAIN, Direction

SPARSE = Direction(density=0.25)


def order(tried: TriedMerge, case: Case) -> None:
    shuffled = [case.clients[number] for number in case.choice]
    check_bits(
        tried.of(shuffled, case.start), tried.of(case.clients, case.start), "in ascending order"
    )


def placement(tried: TriedMerge, case: Case) -> None:
    for each in (case, parts(case)):
        alone = tried.of(each.clients, each.start)
        for vector in tried.on(each.choice, each):
            check_bits(vector, alone, "on one worker")


def numbers(tried: TriedMerge, case: Case) -> None:
    renumbered = [
        replace(one, client=number) for one, number in zip(case.clients, case.choice, strict=True)
    ]
    tried.compare(tried.of(renumbered, case.start), tried.of(case.clients, case.start))


def one_client(tried: TriedMerge, case: Case) -> None:
    tried.compare(tried.of(case.clients, case.start), case.start + case.clients[0].vector)


def equal_clients(tried: TriedMerge, case: Case) -> None:
    first = case.clients[0]
    equal = [replace(first, client=one.client, share=one.share) for one in case.clients]
    tried.compare(tried.of(equal, case.start), tried.of([replace(first, share=1.0)], case.start))


def weights(tried: TriedMerge, case: Case) -> None:
    (split,) = case.choice
    half = replace(case.clients[split], share=case.clients[split].share / 2)
    halved = [half if one.client == split else one for one in case.clients]
    halved.append(replace(half, client=len(case.clients)))
    tried.compare(tried.of(halved, case.start), tried.of(case.clients, case.start))


def scale(tried: TriedMerge, case: Case) -> None:
    twice = [replace(one, vector=2 * one.vector) for one in case.clients]
    tried.compare(tried.of(twice), tried.of(case.clients), 2.0, 4.0)


def still_clients(tried: TriedMerge, case: Case) -> None:
    still = [replace(one, vector=ZERO) for one in case.clients]
    for down in (PLAIN, SPARSE):
        received = replace(tried, down=down)
        tried.compare(received.of(still, case.start), case.start)


def zero_client(tried: TriedMerge, case: Case) -> None:
    halved = [replace(one, share=one.share / 2) for one in case.clients]
    zero = replace(case.clients[0], client=len(halved), vector=ZERO, share=0.5)
    tried.compare(tried.of([*halved, zero]), tried.of(case.clients), 0.5, 0.5)


def lost_client(tried: TriedMerge, case: Case) -> None:
    at, how = case.choice
    first, number = case.clients[0], len(case.clients)
    bad = first.vector.index_fill(0, tried.places[[at % len(tried.places)]], math.nan)
    changes: list[dict[str, Any]] = [{"vector": bad}, {"vector": bad / 0.0}, {"loss": math.nan}]
    for name, extra in first.extras.items():
        wrong = extra.index_fill(0, torch.tensor([at % len(extra)]), math.nan)
        changes.append({"extras": {**first.extras, name: wrong}})
    lost = replace(first, client=number, share=0.75, **changes[how % len(changes)])
    others = [replace(one, share=one.share / 4) for one in case.clients]
    found, step = tried.step([*others, lost], case.start)
    if not step.clients[number].failure:
        raise Broken(f"the report of client {number} does not say that it was left out")
    tried.compare(found, tried.of(case.clients, case.start))


def layers(tried: TriedMerge, case: Case) -> None:
    moved = torch.stack([one.vector.bool() for one in case.clients]).any(0)
    for where in unmoved(tried.of(case.clients), moved):
        raise Broken(f"{where} moved, and no client moved it")


def tiers(tried: TriedMerge, case: Case) -> None:
    held = HOLDING.coordinates(b"")
    masked = [
        replace(one, vector=one.vector * HELD, sent=held) if tier else one
        for one, tier in zip(case.clients, case.choice, strict=True)
    ]
    tiered = [
        replace(one, tier=1, sent=None) if tier else one
        for one, tier in zip(masked, case.choice, strict=True)
    ]
    tried.compare(tried.of(tiered), tried.of(masked))
    alone = tried.of(tiered, case.start)
    check_bits(tried.of(tiered[::-1], case.start), alone, "in ascending order")
    for vector in tried.on([one.client % 2 for one in tiered], replace(case, clients=tiered)):
        check_bits(vector, alone, "on one worker")


BASES = [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], [[2.0, 0.0], [0.0, 0.5]]]
BASES += [[[0.0, 2.0], [0.5, 0.0]]]
"""Exact: they change no bit of a product, so that what compares products compares the same."""


def gauge(tried: TriedMerge, case: Case) -> None:
    changed = [
        replace(one, vector=_in_basis(one.vector, torch.tensor(BASES[number])))
        for one, number in zip(case.clients, case.choice, strict=True)
    ]
    tried.compare(tried.of(changed), tried.of(case.clients))


def _in_basis(vector: Tensor, basis: Tensor) -> Tensor:
    """Return the vector with B G and inv(G) A for every B and A."""
    changed = vector.clone()
    for pair in LAYERS.values():
        pair.b_of(changed).copy_(pair.b_of(vector) @ basis)
        pair.a_of(changed).copy_(basis.inverse() @ pair.a_of(vector))
    return changed


def resume(tried: TriedMerge, case: Case) -> None:
    used = tried.make()
    again = replace(tried, make=lambda: used)
    again.of([replace(one, vector=-one.vector) for one in case.clients], case.start)
    check_bits(
        again.of(case.clients, case.start),
        tried.of(case.clients, case.start),
        "of a merge that was not used before",
    )


def memory(tried: TriedMerge, case: Case) -> None:
    (count,) = case.choice
    few, many = _peak(tried, case, 1), _peak(tried, case, count)
    vectors = (many - few) / (4 * SIZE)
    if vectors > (count - 1) / 2:
        raise Broken(
            f"beside {count} clients of another worker, a worker needs {vectors:.0f} vectors more "
            "than beside one"
        )


def _peak(tried: TriedMerge, case: Case, others: int) -> int:
    """Return the most bytes that a worker of one client has beside ``others`` of another."""
    one = case.clients[0]
    everyone = [
        replace(one, client=client, share=1 / (others + 1), vector=tenths(client))
        for client in range(others + 1)
    ]

    def work(exchange: Exchange) -> int:
        mine = everyone[1:] if exchange.rank else everyone[:1]
        ledger, merge = Ledger(), tried.make()

        def measured(updates: Updates, round: Round) -> Tensor:
            with ledger:
                return merge(updates, round)

        merge_on(exchange, measured, mine, everyone, ZERO, tried.links)
        return ledger.peak

    return on_workers(2, work)[0]
