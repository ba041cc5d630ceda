"""The privacy budget: what is asked for is what the accountant says before the first round."""

import math
from typing import Any

import pytest

from scaling_fl.composition.budget import (
    NOISE,
    Budget,
    make_budget,
)
from scaling_fl.composition.fingerprint import SEAL
from scaling_fl.composition.sampled import sampling_of
from scaling_fl.config import NOISE_SECRET, Config, read_config
from scaling_fl.core.errors import UserError
from scaling_fl.core.seeding import from_seed
from scaling_fl.federation.disclosure import Disclosure
from scaling_fl.methods.privacy.accounting import Accountant
from scaling_fl.methods.privacy.neighbours import Everyone, FixedSize, Nested, Poisson, Sampling


@pytest.fixture(autouse=True)
def noise_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NOISE_SECRET, "k" * 32)


def budget_of(
    num_clients: int = 20, num_rounds: int = 5, clients_per_round: float = 1.0, **privacy: Any
) -> tuple[Budget | None, list[str]]:
    notes: list[str] = []
    config = read_config(
        {
            "task_name": "20newsgroups",
            "num_clients": num_clients,
            "num_rounds": num_rounds,
            "clients_per_round": clients_per_round,
            "weighting": "uniform",
            "privacy": privacy,
        }
    )
    return make_budget(config, num_clients, notes.append), notes


def test_without_a_clip_there_is_no_budget() -> None:
    assert budget_of() == (None, [])


def test_a_clip_alone_has_no_epsilon() -> None:
    budget, notes = budget_of(clip=1.0)
    assert budget
    assert budget.epsilon is None
    assert (budget.noise_multiplier, budget.num_rounds, notes) == (0.0, 5, [])


@pytest.mark.parametrize(
    ("clients_per_round", "sampling", "protected"),
    [
        (1.0, Everyone(), "add_or_remove_one"),
        (0.1, FixedSize(2, 20), "replace_one"),
    ],
)
def test_epsilon_is_that_of_the_sampling_really_used(
    clients_per_round: float, sampling: Everyone | FixedSize, protected: str
) -> None:
    budget, notes = budget_of(
        clients_per_round=clients_per_round, clip=1.0, noise_multiplier=1.5, delta=1e-4
    )
    assert budget
    assert budget.epsilon
    for rounds in (1, 5):
        expected = Accountant(1.5, 1e-4, sampling).epsilon(rounds)
        assert budget.epsilon(rounds) == expected
    (note,) = notes
    assert f"epsilon {budget.epsilon(5):.4g} at delta 0.0001 after 5 rounds" in note
    assert protected in note


def test_a_target_chooses_the_noise() -> None:
    budget, _ = budget_of(clip=1.0, target_epsilon=2.0)
    assert budget
    assert budget.epsilon
    assert 2.0 * 0.998 <= budget.epsilon(5) <= 2.0
    assert budget.guarantee["privacy noise"] == budget.noise_multiplier


def test_the_run_ends_before_it_would_exceed_the_most_that_is_allowed() -> None:
    budget, notes = budget_of(num_rounds=50, clip=1.0, noise_multiplier=2.0, max_epsilon=5.0)
    assert budget
    assert budget.epsilon
    assert 0 < budget.num_rounds < 50
    assert budget.epsilon(budget.num_rounds) <= 5.0 < budget.epsilon(budget.num_rounds + 1)
    assert notes[-1] == (
        f"the run ends after {budget.num_rounds} of 50 rounds, because another round "
        "would exceed privacy.max_epsilon=5"
    )
    enough, _ = budget_of(num_rounds=2, clip=1.0, noise_multiplier=2.0, max_epsilon=5.0)
    assert enough
    assert enough.num_rounds == 2


def test_a_rule_to_stop_ends_the_run_as_the_largest_epsilon_does() -> None:
    older, _ = budget_of(num_rounds=50, clip=1.0, noise_multiplier=2.0, max_epsilon=5.0)
    given: dict[str, Any] = {"num_rounds": 50, "privacy": {"clip": 1.0, "noise_multiplier": 2.0}}
    notes: list[str] = []
    budget = make_budget(private_config(**given, stop_when={"epsilon": 5.0}), 20, notes.append)
    assert budget
    assert older
    assert budget.num_rounds == older.num_rounds
    assert notes[-1].endswith("because another round would exceed stop_when.epsilon=5")
    with pytest.raises(UserError, match=r"stop_when.epsilon must be at least .*, got 0.1; raise"):
        make_budget(private_config(**given, stop_when={"epsilon": 0.1}), 20, notes.append)


@pytest.mark.parametrize(
    ("privacy", "message"),
    [
        (
            {"noise_multiplier": 0.5, "max_epsilon": 0.1},
            "must be at least .*, the cost of one round, got 0.1",
        ),
        ({"noise_multiplier": 0.001}, "privacy.noise_multiplier must be at least 0.01"),
        ({"noise_multiplier": 1.0, "delta": 0.05}, r"privacy.delta must be below 1 / \(number"),
        ({"noise_multiplier": 1.0, "clip": 1e4}, "must be at most 64, got 500; lower"),
    ],
)
def test_noise_that_cannot_do_what_was_asked_for_is_told(
    privacy: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        budget_of(**{"clip": 1.0} | privacy)


def test_noise_needs_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NOISE_SECRET, "short")
    with pytest.raises(
        UserError, match=r"NOISE_SECRET must have .* got 5 with noise; .*openssl rand -hex 32"
    ):
        budget_of(clip=1.0, noise_multiplier=1.0)
    assert budget_of(clip=1.0)[0]


def test_the_terms_tell_apart_what_would_make_another_guarantee() -> None:
    base = {"clip": 1.0, "noise_multiplier": 1.5}
    found = []
    for options in (base, base | {"clip": 2.0}, base | {"noise_multiplier": 1.6}):
        budget, _ = budget_of(**options)
        assert budget
        found.append(budget.guarantee)
    fewer, _ = budget_of(clients_per_round=0.5, **base)
    assert fewer
    found.append(fewer.guarantee)
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


# Ways of sampling, adaptive clips, groups


def private_config(num_clients: int = 20, **settings: Any) -> Config:
    return read_config(
        {
            "task_name": "20newsgroups",
            "num_clients": num_clients,
            "num_rounds": 5,
            "weighting": "uniform",
            **settings,
            "privacy": {"clip": 1.0, **settings.get("privacy", {})},
        }
    )


def build_budget(num_clients: int = 20, **settings: Any) -> Budget:
    budget = make_budget(private_config(num_clients, **settings), num_clients, lambda note: None)
    assert budget
    return budget


GROUPS = {"unit": "group", "groups_per_client": 4, "groups_per_round": 2}
ALL_GROUPS = {"unit": "group", "groups_per_client": 4, "groups_per_round": 4}


@pytest.mark.parametrize(
    ("settings", "sampling"),
    [
        ({}, Everyone()),
        ({"clients_per_round": 20}, Everyone()),
        ({"clients_per_round": 5}, FixedSize(5, 20)),
        ({"clients_per_round": 0.25}, FixedSize(5, 20)),
        ({"clients_per_round": 5, "sampling": "poisson"}, Poisson(0.25)),
        ({"clients": [3, 1, 7]}, Everyone()),
        ({"cohorts": [[0, 1], [2, 3]]}, Everyone()),
        ({"privacy": GROUPS}, Nested(1.0, FixedSize(2, 4))),
        ({"privacy": ALL_GROUPS}, Nested(1.0, Everyone())),
        ({"privacy": GROUPS, "clients_per_round": 5}, Nested(0.25, FixedSize(2, 4))),
        (
            {"privacy": GROUPS, "clients_per_round": 5, "sampling": "poisson"},
            Nested(0.25, Poisson(0.5)),
        ),
        ({"privacy": ALL_GROUPS, "clients_per_round": 5}, Nested(0.25, Everyone())),
        ({"privacy": GROUPS, "clients": [0, 1]}, Nested(1.0, FixedSize(2, 4))),
    ],
    ids=str,
)
def test_the_sampling_is_named_as_it_is(settings: dict[str, Any], sampling: Sampling) -> None:
    assert sampling_of(private_config(**settings), 20) == sampling
    privacy = {"noise_multiplier": 1.5, **settings.get("privacy", {})}
    budget = build_budget(**settings | {"privacy": privacy})
    assert budget.epsilon
    rounds_of_a_client = 3 if "cohorts" in settings else 5
    expected = Accountant(1.5, 1e-5, sampling).epsilon(rounds_of_a_client)
    assert budget.epsilon(5) == expected
    assert budget.guarantee["privacy sampling"] == repr(sampling)


@pytest.mark.parametrize(
    ("settings", "protected"),
    [
        ({}, "protects the participation of one client (add_or_remove_one)"),
        ({"clients_per_round": 5}, "all data of one client that takes part (replace_one)"),
        (
            {"privacy": GROUPS},
            "protects all data of one group of a client that takes part (replace_one)",
        ),
        ({"privacy": ALL_GROUPS}, "participation of one group of a client (add_or_remove_one)"),
    ],
    ids=str,
)
def test_what_is_protected_is_told(settings: dict[str, Any], protected: str) -> None:
    privacy = {"noise_multiplier": 1.5, **settings.get("privacy", {})}
    notes: list[str] = []
    make_budget(private_config(**settings | {"privacy": privacy}), 20, notes.append)
    assert protected in notes[0]


def test_the_divisor_is_the_expected_number_of_units() -> None:
    assert build_budget(clients_per_round=5).num_units == 5
    assert build_budget(clients_per_round=0.25, sampling="poisson").num_units == 5
    assert build_budget(clients=[1, 2, 3]).num_units == 3
    grouped = build_budget(clients_per_round=5, privacy=GROUPS)
    assert grouped.num_units == 10
    privacy = grouped.privacy(from_seed(0), 100)
    assert (privacy.by_group, privacy.share) == (True, 0.1)
    alone = build_budget().privacy(from_seed(0), 100)
    assert (alone.by_group, alone.quantile) == (False, None)


@pytest.mark.parametrize(
    ("noise", "num_clients", "given", "expected"),
    [(0.5, 200, None, 10.0), (1.5, 20, None, 1.5), (1.5, 20, 4.0, 4.0)],
)
def test_an_adaptive_clip_takes_its_part_of_the_noise(
    noise: float, num_clients: int, given: float | None, expected: float
) -> None:
    """Of the whole, z, the updates get less and the count of those within the clip the rest."""
    privacy = {"noise_multiplier": noise, "target_quantile": 0.5} | (
        {"clip_noise": given} if given else {}
    )
    budget = build_budget(num_clients, privacy=privacy)
    assert budget.clip_noise == expected
    assert budget.noise_multiplier**-2 + (2 * expected) ** -2 == pytest.approx(noise**-2)
    assert budget.epsilon
    plain = build_budget(num_clients, privacy={"noise_multiplier": noise})
    assert plain.epsilon
    assert budget.epsilon(5) == plain.epsilon(5)
    quantile = budget.privacy(from_seed(0), 100).quantile
    assert quantile
    assert (quantile.target, quantile.std) == (0.5, expected)


def test_an_adaptive_clip_without_noise_has_none_for_its_count() -> None:
    budget = build_budget(privacy={"target_quantile": 0.5})
    assert (budget.clip_noise, budget.noise_multiplier, budget.epsilon) == (0.0, 0.0, None)


@pytest.mark.parametrize(("sigma", "expected"), [(1.145, 1.006), (0.637, 3.996), (0.468, 8.004)])
def test_the_published_settings_come_out(sigma: float, expected: float) -> None:
    """PFL-DocVQA's, for groups that are drawn by themselves; its own two-stage draws cost more."""
    groups = {"unit": "group", "groups_per_client": 400, "delta": 1e-5}
    privacy = {"noise_multiplier": sigma, **groups}
    alone = build_budget(
        num_rounds=5, sampling="poisson", privacy=privacy | {"groups_per_round": 10}
    )
    assert alone.epsilon
    assert alone.epsilon(5) == pytest.approx(expected, abs=6e-4)
    in_two_stages = build_budget(
        num_rounds=5,
        sampling="poisson",
        clients_per_round=0.2,
        privacy=privacy | {"groups_per_round": 50},
    )
    assert in_two_stages.epsilon
    assert in_two_stages.epsilon(5) > 1.3 * expected


def test_noise_of_two_sizes_is_not_the_same_noise_twice() -> None:
    """From two sums with one noise at two sizes, both the noise and the sum follow."""
    target = {"target_epsilon": 8.0, "delta": 1e-3, "noise_multiplier": 0.0}
    budgets = [
        build_budget(num_rounds=10, privacy=target),
        build_budget(num_rounds=20, privacy=target),
        build_budget(num_rounds=10, privacy=target | {"delta": 1e-4}),
        build_budget(num_rounds=10, privacy=target | {"accountant": "pld"}),
        build_budget(num_rounds=10, privacy=target | {"target_quantile": 0.5}),
    ]
    assert len({b.noise_multiplier for b in budgets}) == len(budgets)
    assert len({b.scale[1] for b in budgets}) == len(budgets)


def test_draws_are_secret_where_epsilon_counts_on_it() -> None:
    noise = {"noise_multiplier": 1.0}
    assert build_budget(clients_per_round=5, privacy=noise).has_secret_draws
    assert build_budget(privacy=noise | GROUPS).has_secret_draws
    assert not build_budget(privacy=noise).has_secret_draws
    assert not build_budget(clients=[1, 2], privacy=noise).has_secret_draws
    assert not build_budget(clients_per_round=5).has_secret_draws


TWO_TIERS = [{"upload": {"codec": "int8"}}, {}]


@pytest.mark.parametrize(
    ("settings", "of_bytes"),
    [
        ({"clients_per_round": 5}, True),
        ({"tiers": TWO_TIERS}, True),
        ({"clients": [1, 2], "tiers": TWO_TIERS}, True),
        ({"clients_per_round": 5, "tiers": TWO_TIERS}, False),
        ({"clients_per_round": 5, "sampling": "poisson"}, False),
        ({"clients_per_round": 5, "sampling": "poisson", "privacy": GROUPS}, True),
    ],
    ids=str,
)
def test_bytes_are_told_where_they_are_the_same_whoever_is_drawn(
    settings: dict[str, Any], of_bytes: bool
) -> None:
    privacy = settings.get("privacy", {})
    noisy = {**settings, "privacy": {"noise_multiplier": 1.0, **privacy}}
    assert build_budget(**noisy).disclosure == Disclosure(of_clients=False, of_bytes=of_bytes)
    assert build_budget(**settings).disclosure == Disclosure()


def test_a_job_of_an_earlier_version_keeps_its_larger_noise() -> None:
    target = private_config(privacy={"target_epsilon": 4.0, "delta": 1e-3})

    def noise(**begun: Any) -> float:
        budget = make_budget(target, 20, lambda note: None, begun=begun)
        assert budget
        return budget.total_noise

    solved = noise()
    assert noise(**{NOISE: 2 * solved}) == 2 * solved
    assert noise(**{NOISE: solved / 2}) == solved
    assert noise(**{NOISE: 2 * solved, SEAL: {}}) == solved


def test_delta_is_small_against_the_number_of_what_is_protected() -> None:
    noise = {"noise_multiplier": 1.0, "delta": 0.02}
    assert build_budget(privacy=noise)
    with pytest.raises(UserError, match=r"1 / \(number of groups\).* got 0\.02 with 80 groups"):
        build_budget(privacy=noise | GROUPS)


@pytest.mark.parametrize(("sampling", "largest"), [("fixed", 512.0), ("poisson", 256.0)])
def test_the_groups_of_a_client_fit_its_sum(sampling: str, largest: float) -> None:
    """Or one group could decide that the client is left out with all the others."""
    with pytest.raises(UserError, match=f"at most {largest:g}, "):
        build_budget(sampling=sampling, privacy={"clip": largest + 1, **GROUPS})
    fits = build_budget(sampling=sampling, privacy={"clip": largest, **GROUPS})
    assert fits.privacy(from_seed(0), 100).largest_clip == largest


def test_too_little_noise_on_the_count_within_the_clip_is_refused() -> None:
    privacy = {"noise_multiplier": 2.0, "target_quantile": 0.5, "clip_noise": 1.0}
    with pytest.raises(UserError, match=r"^privacy\.clip_noise must be above half of .* got 1"):
        build_budget(privacy=privacy)


@pytest.mark.parametrize(("groups", "drawn_of_expected"), [({}, 10), (GROUPS, 20)])
def test_a_clip_that_a_poisson_draw_could_overflow_with_is_refused(
    groups: dict[str, Any], drawn_of_expected: int
) -> None:
    """All 20 may be drawn where 2 are expected, and all 4 groups where 2 are."""
    settings = {"clients_per_round": 2, "sampling": "poisson"}
    with pytest.raises(UserError, match=r"at most .* stays below 1024, got .*; lower"):
        build_budget(**settings, privacy={"clip": 1030 / drawn_of_expected, **groups})
    fits = build_budget(**settings, privacy={"clip": 1020 / drawn_of_expected, **groups})
    assert fits.privacy(from_seed(0), 100).largest_clip == 1024 / drawn_of_expected
    fixed = build_budget(clients_per_round=2, privacy={"clip": 1e6})
    assert fixed.privacy(from_seed(0), 100).largest_clip == math.inf


def test_a_clip_that_the_rounding_of_a_sum_drowns_is_refused() -> None:
    """A step of the sum is 2**-52; 10,000 coordinates of 20 clients round by 100 * 20 of them."""
    least = 128 * 100 * 20 * 2.0**-52
    noisy = {"noise_multiplier": 1.0}
    with pytest.raises(UserError) as caught:
        build_budget(privacy=noisy | {"clip": least / 2}).privacy(from_seed(0), 10_000)
    assert str(caught.value) == (
        "privacy.clip must be at least 5.7e-11 with 10,000 parameters and 20 clients or groups in "
        "a round, because a sum rounds what is far smaller, got 2.84217e-11; raise privacy.clip."
    )
    fits = build_budget(privacy=noisy | {"clip": least}).privacy(from_seed(0), 10_000)
    assert fits.rounding == least / 128
    quiet = build_budget(privacy={"clip": least / 2}).privacy(from_seed(0), 10_000)
    assert quiet.rounding == 0.0


TURNS = [[client] for client in range(10)]


@pytest.mark.parametrize(
    ("cohorts", "num_rounds", "busiest"),
    [(TURNS, 30, 3), (TURNS, 31, 4), ([[0, 1], [0, 2]], 5, 5), ([[1, 2], [3, 4], [1, 5]], 5, 3)],
    ids=str,
)
def test_with_listed_cohorts_epsilon_is_that_of_the_client_of_most_rounds(
    cohorts: list[list[int]], num_rounds: int, busiest: int
) -> None:
    noise = {"noise_multiplier": 1.5, "accountant": "pld"}
    listed = build_budget(cohorts=cohorts, num_rounds=num_rounds, privacy=noise)
    assert listed.epsilon
    assert listed.epsilon(num_rounds) == Accountant(1.5, 1e-5, Everyone(), "pld").epsilon(busiest)


def test_with_listed_cohorts_the_budget_counts_the_rounds_of_a_client() -> None:
    once = Accountant(1.5, 1e-5, Everyone(), "pld").epsilon(1)
    noise = {"noise_multiplier": 1.5, "accountant": "pld", "max_epsilon": once * 1.01}
    assert build_budget(cohorts=TURNS, num_rounds=30, privacy=noise).num_rounds == 10
    target = {"target_epsilon": once, "accountant": "pld"}
    chosen = build_budget(cohorts=TURNS, num_rounds=10, privacy=target)
    assert chosen.total_noise == pytest.approx(1.5, rel=2e-3)
