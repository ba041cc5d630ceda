"""What follows from the secret: the same on all workers, another one for whatever differs."""

import json
from typing import Any

import pytest
import torch

from scaling_fl.composition.fingerprint import OWNERS, SEAL
from scaling_fl.composition.secrecy import Seal, Secrecy, make_seal, make_secrecy
from scaling_fl.config import NOISE_SECRET, read_config
from scaling_fl.conformance.workers import on_workers
from scaling_fl.core.errors import UserError
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.seeding import Randomness, numpy_generator

ALONE = SingleExchange(1)
CPU = torch.device("cpu")
SALT = "0f" * 16


@pytest.fixture(autouse=True)
def noise_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NOISE_SECRET, "k" * 32)


def secrecy_of(
    *facts: Any, seal: Seal | None = None, exchange: Exchange = ALONE, device: torch.device = CPU
) -> Secrecy:
    config = read_config({"task_name": "20newsgroups"})
    return make_secrecy(config, seal, list(facts), exchange, device)


def first(randomness: Randomness, *indices: int, history: str = "") -> float:
    return float(randomness("cohort", *indices, history=history).random())


@pytest.fixture(scope="module")
def seal() -> Seal:
    return Seal.of("k" * 32, SALT)


def test_jobs_that_differ_in_anything_share_neither_noise_nor_draws(
    seal: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = secrecy_of({"lr": 1}, seal=seal), secrecy_of({"lr": 2}, seal=seal)
    monkeypatch.setenv(NOISE_SECRET, "q" * 32)
    elsewhere = secrecy_of({"lr": 1}, seal=seal)
    streams = [r for s in (one, other, elsewhere) for r in (s.noise, s.draws)]
    assert len({first(stream, 1) for stream in streams}) == 6


def test_equal_jobs_share_both_so_that_a_result_can_be_repeated(seal: Seal) -> None:
    again = Seal.of("k" * 32, "aa" * 16)
    one, other = secrecy_of({"lr": 1}, seal=seal), secrecy_of({"lr": 1}, seal=again)
    assert first(one.noise, 1) == first(other.noise, 1)
    assert first(one.draws, 1) == first(other.draws, 1)


def test_on_a_gpu_no_two_jobs_share_their_noise(seal: Seal) -> None:
    """Its sums differ from run to run, so equal noise would leave their bare difference."""
    again, gpu = Seal.of("k" * 32, "aa" * 16), torch.device("cuda")
    one, other = secrecy_of(1, seal=seal, device=gpu), secrecy_of(1, seal=again, device=gpu)
    assert first(one.noise, 1) != first(other.noise, 1)


def test_what_was_before_a_round_decides_its_noise_and_draws(seal: Seal) -> None:
    """Or a job that changed its settings on the way would share what follows with another."""
    secrecy = secrecy_of(1, seal=seal)
    for stream in (secrecy.noise, secrecy.draws):
        drawn = {first(stream, r, history=h) for r in (1, 2) for h in ("", "a" * 64, "b" * 64)}
        assert len(drawn) == 6
        assert first(stream, 2, history="x") == first(stream, 2, history="x")


def test_workers_with_different_secrets_or_weights_are_refused(seal: Seal) -> None:
    def check(exchange: Exchange) -> str:
        with pytest.raises(UserError) as caught:
            secrecy_of({"weights": exchange.rank}, seal=seal, exchange=exchange)
        return str(caught.value)

    assert set(on_workers(2, check)) == {
        "SCALING_FL_NOISE_SECRET and the weights of model must be the same on all machines, got "
        "different ones; copy those of the first machine to all others."
    }


def test_all_workers_of_a_new_job_have_one_seal() -> None:
    seals = on_workers(2, lambda exchange: make_seal(None, exchange))
    assert seals[0] == seals[1]
    assert make_seal(None, ALONE) != seals[0]


def test_a_job_goes_on_with_its_secret_and_with_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    seal = make_seal(None, ALONE)
    assert seal
    begun = {SEAL: json.loads(json.dumps(seal.record))}
    assert make_seal(begun, ALONE) == seal
    monkeypatch.setenv(NOISE_SECRET, "k" * 31 + "l")
    with pytest.raises(UserError) as caught:
        make_seal(begun, ALONE)
    assert str(caught.value) == (
        "SCALING_FL_NOISE_SECRET must be the secret that the job was begun with, got another one; "
        "restore it in .env, or start anew with another job_name or checkpoints_dir."
    )


def test_a_job_of_an_earlier_version_goes_on_without_a_seal_with_its_draws() -> None:
    assert make_seal({"privacy noise": 1.0}, ALONE) is None
    draws = secrecy_of(1).draws
    assert first(draws, 3) == first(secrecy_of(2).draws, 3)
    # sha256 of ["kk...k", "draws", 0], as they were derived
    assert first(draws, 3) == numpy_generator(EARLIER_SEED, "cohort", 3).random()


EARLIER_SEED = 5689134907902803790


def test_the_hashes_of_data_say_nothing_without_the_secret(seal: Seal) -> None:
    kept = {"privacy.clip": 1.0, OWNERS: {"num_clients": 4, "data": ["a" * 12]}}
    sealed = seal.over(kept)
    (tag,) = sealed[OWNERS]["data"]
    assert sealed == {**kept, OWNERS: {"num_clients": 4, "data": [tag]}, SEAL: seal.record}
    assert "a" * 12 not in json.dumps(sealed)
    assert seal.over(kept) == sealed
    others = [Seal.of("q" * 32, SALT), Seal.of("k" * 32, "aa" * 16)]
    assert len({tag, *(other.over(kept)[OWNERS]["data"][0] for other in others)}) == 3
    assert seal.over({**kept, OWNERS: {"data": ["b" * 12]}})[OWNERS]["data"] != [tag]
