"""Privacy in the server's step: the order decode, clip, sum, noise, divide; the same everywhere."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from scaling_fl.conformance.workers import on_workers
from scaling_fl.core.exact_sum import ExactSum
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.seeding import from_seed
from scaling_fl.core.state import GlobalState, Memory
from scaling_fl.federation.arrivals import Reply
from scaling_fl.federation.privacy import CLIP, Privacy, Quantile
from scaling_fl.federation.server import Step
from scaling_fl.methods.privacy.mechanism import LARGEST_STD, rounding_norm
from tests.unit.federation.test_server import (
    SIZE,
    START,
    make_reply,
    make_server,
    play,
    reply_of,
    vector_of,
)

SCALES = (0.001, 0.1, 5.0, 0.2)
"""Of the clients' updates, whose norms are about 17 times as large."""


QUARTERS = dict.fromkeys(range(4), 0.25)


def updates(*, lost: Sequence[int] = ()) -> list[Reply]:
    return [
        make_reply(client, scale=scale, is_lost=client in lost)
        for client, scale in enumerate(SCALES)
    ]


def step(
    privacy: Privacy | None,
    given: list[Reply],
    exchange: Exchange | None = None,
    *,
    round_number: int = 5,
) -> tuple[Tensor, Step]:
    """Do one server step of four clients and return the new global vector."""
    state = GlobalState(START, round=round_number - 1)
    # On several workers, each has only a part of the clients.
    shares = {reply.report.client: 0.25 for reply in given} if exchange is None else QUARTERS
    after, done = play(make_server(exchange, privacy=privacy), state, shares, given)
    return after.vector, done


def private(clip: float = 1.0, noise_multiplier: float = 0.0, seed: int = 3) -> Privacy:
    return Privacy(clip=clip, noise_multiplier=noise_multiplier, num_units=4, noise=from_seed(seed))


def test_a_clip_above_all_norms_changes_no_bit() -> None:
    plain, done = step(None, updates())
    clipped, private_done = step(private(clip=1e3), updates())
    assert torch.equal(clipped, plain)
    assert "update.drift" in done.metrics
    assert private_done.metrics == {}  # it would tell how far apart the clients are


def test_every_update_counts_for_at_most_the_clip() -> None:
    vectors = [vector_of(reply).double() for reply in updates()]
    clipped = [vector / max(1.0, float(vector.norm())) for vector in vectors]
    state, _ = step(private(clip=1.0), updates())
    mean = torch.stack(clipped).sum(0) / 4
    assert torch.allclose(state.double(), START.double() + mean, atol=1e-6)


def test_noise_is_that_of_the_sum_over_all_clients() -> None:
    """Its standard deviation on the mean is noise_multiplier * clip / clients."""
    quiet, _ = step(private(clip=2.0), updates())
    noises = []
    for seed in range(40):
        loud, _ = step(private(clip=2.0, noise_multiplier=1.5, seed=seed), updates())
        noises.append(loud.double() - quiet.double())
    noise = torch.cat(noises)
    assert float(noise.std()) == pytest.approx(1.5 * 2.0 / 4, rel=0.03)
    assert abs(float(noise.mean())) < 4 * 0.75 / noise.numel() ** 0.5


def test_noise_is_new_in_every_round_and_the_same_when_a_round_is_repeated() -> None:
    noisy = private(noise_multiplier=1.0)
    first, _ = step(noisy, updates(), round_number=5)
    again, _ = step(noisy, updates(), round_number=5)
    other, _ = step(noisy, updates(), round_number=6)
    assert torch.equal(first, again)
    assert not torch.isclose(first, other, atol=1e-4).any()


def test_who_is_left_out_changes_the_divisor_only_without_noise() -> None:
    kept = [vector_of(reply).double() for reply in updates() if reply.report.client != 1]
    vectors = [vector / max(1.0, float(vector.norm())) for vector in kept]
    for noise, divisor in ((0.0, 3), (1e-9, 4)):
        given = updates(lost=[1])
        state, _ = step(private(clip=1.0, noise_multiplier=noise), given)
        mean = torch.stack(vectors).sum(0) / divisor
        assert torch.allclose(state.double(), START.double() + mean, atol=1e-6)


@pytest.mark.parametrize("size", [2, 3])
def test_all_workers_add_the_same_noise_once(size: int) -> None:
    noisy = private(noise_multiplier=1.0)
    alone, _ = step(noisy, updates())

    def work(exchange: Exchange) -> Tensor:
        mine = [u for u in updates() if u.report.client % size == exchange.rank]
        return step(noisy, mine, exchange)[0]

    for state in on_workers(size, work):
        assert torch.equal(state, alone)


@pytest.mark.parametrize("num_sampled", [2, 4, 6])
def test_leaving_a_client_out_means_over_the_others_however_many_were_drawn(
    num_sampled: int,
) -> None:
    """With poisson sampling and without noise; the divisor is that of the four expected."""
    given = [make_reply(client, is_lost=client == 1) for client in range(num_sampled)]
    usable = [vector_of(r).double() for r in given if r.report.client != 1]
    server, shares = make_server(privacy=private(clip=1e3)), dict.fromkeys(range(num_sampled), 0.25)
    state, _ = play(server, GlobalState(START), shares, given)
    mean = torch.stack(usable).mean(0) * num_sampled / 4
    assert torch.allclose(state.vector.double(), START.double() + mean, atol=1e-6)


# A clip that follows a quantile


def adaptive(
    clip: float,
    target: float = 0.5,
    *,
    learning_rate: float = 0.2,
    std: float = 0.0,
    num_units: int = 4,
    noise_multiplier: float = 0.0,
) -> Privacy:
    return Privacy(
        clip=clip,
        noise_multiplier=noise_multiplier,
        num_units=num_units,
        noise=from_seed(3),
        quantile=Quantile(target=target, learning_rate=learning_rate, std=std),
    )


def of_norm(client: int, norm: float) -> Reply:
    vector = vector_of(make_reply(client))
    return reply_of(client, vector * (norm / float(vector.double().norm())))


def clips_of(privacy: Privacy, rounds: list[list[float]]) -> list[float]:
    """Run rounds whose updates have these norms; return the clip before each and after the last."""
    state, server = GlobalState(START), make_server(privacy=privacy)
    clips = [server.clip(state)]
    for norms in rounds:
        shares = dict.fromkeys(range(len(norms)), privacy.share)
        given = [of_norm(client, norm) for client, norm in enumerate(norms)]
        state, _ = play(server, state, shares, given)
        clips.append(server.clip(state))
    return clips


def clip_in(state: GlobalState) -> float:
    return float(state.memory.server[CLIP])


@pytest.mark.parametrize("target", [0.25, 0.5, 0.9])
def test_the_clip_is_that_of_the_paper_step_by_step(target: float) -> None:
    """C <- C exp(-eta (b - gamma)), where b is the share of the norms that are at most C."""
    rng = np.random.default_rng(2)
    rounds = [rng.lognormal(0.0, 1.0, 4).tolist() for _ in range(30)]
    expected = [0.3]
    for norms in rounds:
        within = sum(norm <= expected[-1] for norm in norms) / len(norms)
        expected.append(expected[-1] * math.exp(-0.2 * (within - target)))
    assert clips_of(adaptive(0.3, target), rounds) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("first", [0.01, 30.0])
@pytest.mark.parametrize(("target", "low", "high"), [(0.3, 1.0, 2.0), (0.6, 2.0, 3.0)])
def test_the_clip_converges_to_the_quantile_of_norms_that_stay(
    first: float, target: float, low: float, high: float
) -> None:
    clips = clips_of(adaptive(first, target, learning_rate=0.3), [[1.0, 2.0, 3.0, 4.0]] * 120)
    assert all(low * 0.95 <= clip <= high * 1.05 for clip in clips[-20:])


def test_the_clip_is_remembered_by_the_state_alone() -> None:
    privacy, norms = adaptive(0.5), [0.2, 0.4, 3.0, 9.0]
    clip = torch.tensor(2.0, dtype=torch.float64)
    state, server = GlobalState(START, memory=Memory({CLIP: clip})), make_server(privacy=privacy)
    assert server.clip(state) == 2.0
    given = [of_norm(client, norm) for client, norm in enumerate(norms)]
    after, _ = play(server, state, QUARTERS, given)
    clipped = [
        vector_of(reply).double() * (min(norm, 2.0) / norm)
        for reply, norm in zip(given, norms, strict=True)
    ]
    mean = torch.stack(clipped).mean(0)
    assert torch.allclose(after.vector.double(), START.double() + mean, atol=1e-6)
    assert clip_in(after) == 2.0  # half of them were within it
    assert server.clip(GlobalState(START)) == 0.5
    fixed, _ = play(make_server(privacy=private(clip=0.5)), GlobalState(START), QUARTERS, updates())
    assert fixed.memory == Memory()


@pytest.mark.parametrize("size", [2, 3])
def test_updates_within_the_clip_are_counted_over_all_workers(size: int) -> None:
    def clip_after(exchange: Exchange) -> float:
        server = make_server(exchange, privacy=adaptive(1.0, std=0.1))
        mine = [
            of_norm(client, norm)
            for client, norm in enumerate([0.1, 0.2, 0.3, 5.0])
            if client % size == exchange.rank or exchange.size == 1
        ]
        return clip_in(play(server, GlobalState(START), QUARTERS, mine)[0])

    alone = clip_after(SingleExchange(1))
    assert set(on_workers(size, clip_after)) == {alone}
    assert alone != math.exp(-0.2 * 0.25)  # what it would be without noise


def test_who_is_left_out_is_not_among_those_within() -> None:
    given = [of_norm(client, 0.1) for client in range(4)]
    given[2] = reply_of(2, vector_of(given[2]), is_lost=True)
    state, _ = play(make_server(privacy=adaptive(1.0)), GlobalState(START), QUARTERS, given)
    assert clip_in(state) == pytest.approx(math.exp(-0.2 * (3 / 4 - 0.5)))


def test_a_noisy_round_never_ends_for_lack_of_clients() -> None:
    """Its end would tell whose data made it fail, and a resume would repeat it for ever."""
    lost = [make_reply(client, is_lost=True) for client in range(4)]
    state, done = step(private(noise_multiplier=1.0), lost)
    assert len(done.clients) == 4
    assert not torch.equal(state, START)


def test_the_clip_stops_where_a_sum_could_no_longer_hold_its_noise() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        noise, num_units = float(rng.uniform(0.1, 5)), int(rng.integers(1, 500))
        privacy = adaptive(1e9, noise_multiplier=noise, num_units=num_units)
        clip = privacy.next_clip(privacy.clip, 0, num_units, rng)
        assert clip == pytest.approx(LARGEST_STD * num_units / noise)
        privacy.add_noise(torch.zeros(3, dtype=torch.int64), clip=clip, rng=rng)


def test_the_clip_stops_where_a_sum_could_overflow() -> None:
    privacy = replace(adaptive(99.0), largest_clip=100.0)
    assert clips_of(privacy, [[500.0] * 4] * 2)[1:] == [100.0, 100.0]


def test_with_noise_no_clip_falls_to_what_rounding_drowns() -> None:
    privacy = replace(adaptive(1.0, 0.0, noise_multiplier=1.0), rounding=0.003)
    assert clips_of(privacy, [[0.0] * 4] * 12)[-1] == 128 * 0.003


@pytest.mark.parametrize("clip_in_roundings", [128.0, 1e4])
def test_what_a_sum_makes_of_an_update_is_never_longer_than_the_clip(
    clip_in_roundings: float,
) -> None:
    """In steps of the sum: two long coordinates, and many that are rounded up from a half."""
    size, num_units = 4096, 7
    rounding = rounding_norm(size, num_units)
    clip = clip_in_roundings * rounding
    largest = clip / num_units * 2.0**52
    steps = torch.full((size,), 0.5001)
    left = largest**2 - 0.2502 * size
    steps[0] = math.isqrt(int(left))
    steps[1] = math.isqrt(int(left - float(steps[0]) ** 2))
    lengths = []
    for bound in (rounding, 0.0):
        privacy = replace(private(clip, 1.0), rounding=bound, num_units=num_units)
        update = steps * (num_units * 2.0**-52)
        privacy.bound(update, clip)
        sums = ExactSum(size, torch.device("cpu"))
        sums.add(update, privacy.share)
        lengths.append(float(sums.integers.double().norm()))
    accounted, ignored = lengths
    assert accounted <= largest < ignored


# Groups, and rounds that nobody was drawn for


def test_groups_are_bounded_by_their_clients_and_not_again() -> None:
    """The sum of a client's groups may be longer than what bounds each of them."""
    grouped = replace(adaptive(1.0), by_group=True, num_units=12)
    given = [
        replace(of_norm(client, 2.5), num_units=3, num_unclipped=within)
        for client, within in enumerate((3, 0, 1, 2))
    ]
    before = [vector_of(reply).clone() for reply in given]
    shares = dict.fromkeys(range(4), 1 / 12)
    state, _ = play(make_server(privacy=grouped), GlobalState(START), shares, given)
    after = [vector_of(reply) for reply in given]
    assert all(torch.equal(new, old) for new, old in zip(after, before, strict=True))
    mean = torch.stack(before).double().sum(0) / 12
    assert torch.allclose(state.vector.double(), START.double() + mean, atol=1e-6)
    assert clip_in(state) == pytest.approx(math.exp(-0.2 * (6 / 12 - 0.5)))


def test_a_client_of_groups_that_is_left_out_leaves_the_mean_over_the_other_groups() -> None:
    grouped = Privacy(
        clip=1.0, noise_multiplier=0.0, num_units=12, noise=from_seed(3), by_group=True
    )
    given = updates(lost=[1])
    kept = [vector_of(reply).double() for reply in given if reply.report.client != 1]
    shares = dict.fromkeys(range(4), 1 / 12)
    state, _ = play(make_server(privacy=grouped), GlobalState(START), shares, given)
    mean = torch.stack(kept).sum(0) / 9
    assert torch.allclose(state.vector.double(), START.double() + mean, atol=1e-6)


@pytest.mark.parametrize("privacy", [None, private(clip=1.0)])
def test_a_round_of_nobody_leaves_the_state_alone_to_the_bit(privacy: Privacy | None) -> None:
    state, done = step(privacy, [])
    assert torch.equal(state, START)
    assert (done.clients, done.update_norm, done.metrics) == ([], 0.0, {})


def test_a_round_of_nobody_steps_by_its_noise() -> None:
    """Or its quiet would tell that nobody was drawn."""
    noisy = private(clip=2.0, noise_multiplier=1.5)
    state, done = step(noisy, [])
    loud, _ = step(noisy, updates())
    quiet, _ = step(private(clip=2.0), updates())
    assert torch.allclose(state - START, loud - quiet, atol=1e-6)
    assert done.update_norm == pytest.approx(0.75 * SIZE**0.5, rel=0.2)
