"""Privacy in the server's step: the order decode, clip, sum, noise, divide; the same everywhere."""

import pytest
import torch
from torch import Tensor

from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.privacy import Privacy
from scaling_fl.federation.server import Server, Step
from scaling_fl.methods.server_optimisers import sgd
from tests.unit.federation.test_server import SIZE, START, Sent, make_update
from tests.unit.federation.worker_threads import on_workers

SCALES = (0.001, 0.1, 5.0, 0.2)
"""Of the clients' updates, whose norms are about 17 times as large."""


def updates(**failures: str) -> list[Sent]:
    return [
        make_update(client, scale=scale, failure=failures.get(f"client{client}"))
        for client, scale in enumerate(SCALES)
    ]


def step(
    privacy: Privacy | None,
    given: list[Sent],
    exchange: Exchange | None = None,
    *,
    round_number: int = 5,
) -> tuple[Tensor, Step]:
    """Do one server step of four clients and return the new global vector less the old one."""
    state = GlobalState(START.clone(), round=round_number - 1)
    server = Server(
        exchange or SingleExchange(1), sgd(1.0), torch.empty(SIZE), min_clients=1, privacy=privacy
    )
    done = server.step(state, dict.fromkeys(range(4), 0.25), iter(given))
    return state.vector, done


def private(clip: float = 1.0, noise_multiplier: float = 0.0, seed: int = 3) -> Privacy:
    return Privacy(clip=clip, noise_multiplier=noise_multiplier, num_units=4, seed=seed)


def test_a_clip_above_all_norms_changes_no_bit() -> None:
    plain, done = step(None, updates())
    clipped, private_done = step(private(clip=1e3), updates())
    assert torch.equal(clipped, plain)
    assert private_done.drift is None
    assert done.drift is not None


def test_every_update_counts_for_at_most_the_clip() -> None:
    vectors = [update.vector.double() for update, _ in updates()]
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
    kept = [update for update in updates() if update[1].client != 1]
    vectors = [u.vector.double() / max(1.0, float(u.vector.double().norm())) for u, _ in kept]
    for noise, divisor in ((0.0, 3), (1e-9, 4)):
        given = updates(client1="its loss is nan")
        state, _ = step(private(clip=1.0, noise_multiplier=noise), given)
        mean = torch.stack(vectors).sum(0) / divisor
        assert torch.allclose(state.double(), START.double() + mean, atol=1e-6)


@pytest.mark.parametrize("size", [2, 3])
def test_all_workers_add_the_same_noise_once(size: int) -> None:
    noisy = private(noise_multiplier=1.0)
    alone, _ = step(noisy, updates())

    def work(exchange: Exchange) -> Tensor:
        mine = [u for u in updates() if u[1].client % size == exchange.rank]
        return step(noisy, mine, exchange)[0]

    for state in on_workers(size, work):
        assert torch.equal(state, alone)
