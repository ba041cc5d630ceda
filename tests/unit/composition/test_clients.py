"""The clients' side of the composition: settings become tiers, links, groups and cohorts."""

from typing import Any

import numpy as np
import pytest
import torch

from scaling_fl.composition.budget import make_budget
from scaling_fl.composition.clients import (
    make_clients,
    make_cohorts,
    make_link,
    make_rounds,
    tier_of_clients,
)
from scaling_fl.composition.data import Data
from scaling_fl.config import Config, read_config
from scaling_fl.core.errors import UserError
from scaling_fl.core.seeding import from_seed
from scaling_fl.federation.client import Clients
from scaling_fl.federation.link import Link
from scaling_fl.methods.pairs import adapter_coordinates
from scaling_fl.methods.sampling import fixed_cohorts, poisson_cohorts
from scaling_fl.methods.wire.direction import Direction
from scaling_fl.methods.wire.holding import RankHolding
from tests.unit.federation.federations import TASK, even_partitions, make_examples, make_trainer

LORA = {"adapter": {"kind": "lora", "rank": 4}}
GROUPS = {"clip": 1.0, "unit": "group", "groups_per_client": 4, "groups_per_round": 2}


def config_of(**settings: Any) -> Config:
    return read_config({"task_name": "20newsgroups", "model": "tiny", "num_clients": 6, **settings})


@pytest.fixture(scope="module")
def trainer() -> Any:
    return make_trainer(adapter="lora")


def clients_of(config: Config, trainer: Any, num_clients: int = 6) -> Clients:
    data = Data(
        task=TASK,
        train=make_examples(48),
        test=make_examples(3),
        partitions=even_partitions(num_clients),
    )
    budget = make_budget(config, num_clients, lambda note: None)
    return make_clients(
        config, trainer, data, budget.privacy(from_seed(0), 100) if budget else None
    )


def test_without_tiers_there_is_one_for_all(trainer: Any) -> None:
    clients = clients_of(config_of(), trainer)
    assert clients.tier_of == [0] * 6
    (tier,) = clients.tiers
    assert tier.link == Link(trainer.layout.size)
    assert (tier.work.num_epochs, tier.work.num_steps) == (2, None)


def test_every_tier_has_its_own_link_and_steps(trainer: Any) -> None:
    config = config_of(
        **LORA,
        tiers=[{"rank": 2, "num_local_steps": 3}, {"download": {"density": 0.5}}, {"rank": 4}],
        download={"codec": "nf4", "keep_heads": True},
        upload={"codec": "int8", "density": 0.25, "density_decay": 0.5, "error_feedback": True},
        client_freeze=True,
        server_freeze=True,
    )
    clients = clients_of(config, trainer)
    assert clients.tier_of == [0, 1, 2, 0, 1, 2]
    links = [tier.link for tier in clients.tiers]
    assert [link.down for link in links] == [
        Direction(codec="nf4"),
        Direction(codec="nf4", density=0.5),
        Direction(codec="nf4"),
    ]
    for link in links:
        assert link.up == Direction(codec="int8", density=0.25, density_decay=0.5)
        assert link.error_feedback
        assert link.client_freeze
        assert link.server_freeze
        assert not link.uploads_state
        assert link.always_up is None
        assert link.always_down is not None
        assert torch.equal(link.always_down, ~adapter_coordinates(trainer.layout))
    assert links[0].holding is not None
    assert links[0].holding.size == RankHolding(trainer.layout, 2).size
    assert links[1].holding is links[2].holding is None  # the whole rank
    assert [tier.work.num_steps for tier in clients.tiers] == [3, None, None]
    assert [tier.work.num_epochs for tier in clients.tiers] == [None, 2, 2]


@pytest.mark.parametrize(("ranks", "told"), [("first", 0), ("largest", 2)])
def test_the_components_of_a_smaller_rank_are_chosen_as_asked(
    trainer: Any, ranks: str, told: int
) -> None:
    config = config_of(**LORA, tiers=[{"rank": 1}, {}], tier_ranks=ranks)
    link = make_link(config.by_tier()[0], config, trainer.layout)
    assert link.holding is not None
    assert link.holding.num_bytes == told  # 4 pairs of 4 components


def test_states_are_uploaded_when_asked(trainer: Any) -> None:
    config = config_of(upload={"codec": "nf4", "values": "state"})
    assert make_link(config, config, trainer.layout).uploads_state


def test_tiers_are_dealt_by_modulo_share_or_list() -> None:
    assert tier_of_clients(config_of(**LORA, tiers=[{"rank": 2}, {}]), 6) == [0, 1] * 3
    shares = config_of(**LORA, tiers=[{"rank": 2, "share": 1 / 3}, {"share": 2 / 3}])
    assert sorted(tier_of_clients(shares, 6)) == [0, 0, 1, 1, 1, 1]
    assert tier_of_clients(shares, 6) == tier_of_clients(shares, 6)
    other = shares.model_copy(update={"seed": 5})
    assert tier_of_clients(shares, 60) != tier_of_clients(other, 60)
    lists = config_of(**LORA, tiers=[{"rank": 2, "clients": [5, 0]}, {"clients": [1, 2, 3, 4]}])
    assert tier_of_clients(lists, 6) == [0, 1, 1, 1, 1, 0]


def test_a_cohort_is_sampled_flipped_or_listed() -> None:
    fixed = config_of(clients_per_round=2)
    poisson = config_of(clients_per_round=2, sampling="poisson")
    for number in range(1, 9):
        assert make_cohorts(fixed, 6)(number) == fixed_cohorts(6, 2, from_seed(0))(number)
        assert make_cohorts(poisson, 6)(number) == poisson_cohorts(6, 2, from_seed(0))(number)
    assert make_cohorts(config_of(clients=[4, 1]), 6)(7) == [1, 4]
    listed = make_cohorts(config_of(cohorts=[[4, 1], [0]]), 6)
    assert [listed(number) for number in (1, 2, 3)] == [[1, 4], [0], [1, 4]]


def test_the_examples_of_a_client_are_dealt_into_groups_once_and_for_all(trainer: Any) -> None:
    config = config_of(weighting="uniform", privacy=GROUPS)
    groups = clients_of(config, trainer).groups
    assert groups
    assert groups.per_round == 2
    again = clients_of(config, make_trainer(adapter="lora")).groups
    assert again
    for owned, dealt, same in zip(even_partitions(6), groups.examples, again.examples, strict=True):
        assert [len(group) for group in dealt] == [2] * 4
        assert np.array_equal(np.sort(np.concatenate(dealt)), owned)
        assert all(np.array_equal(a, b) for a, b in zip(dealt, same, strict=True))
    assert clients_of(config_of(weighting="uniform", privacy={"clip": 1.0}), trainer).groups is None


def test_more_groups_than_examples_are_refused(trainer: Any) -> None:
    config = config_of(weighting="uniform", privacy=GROUPS | {"groups_per_client": 9})
    with pytest.raises(UserError) as caught:
        clients_of(config, trainer)
    assert str(caught.value) == (
        "privacy.groups_per_client must be at most the 8 examples that client 0 has, got 9; lower "
        "it, or split the data more evenly."
    )


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({"privacy": {"clip": 1.0}, "clients_per_round": 2}, {1: 0.5, 4: 0.5, 5: 0.5}),
        ({"privacy": GROUPS, "clients_per_round": 2}, {1: 0.25, 4: 0.25, 5: 0.25}),
        ({"clients_per_round": 2}, {1: 1 / 3, 4: 1 / 3, 5: 1 / 3}),
    ],
    ids=str,
)
def test_the_shares_of_a_private_round_do_not_depend_on_who_was_drawn(
    trainer: Any, settings: dict[str, Any], shares: dict[int, float]
) -> None:
    config = config_of(weighting="uniform", sampling="poisson", **settings)
    budget = make_budget(config, 6, lambda note: None)
    rounds = make_rounds(config, clients_of(config, trainer), trainer.layout, 6, budget)
    assert rounds.shares([1, 4, 5]) == pytest.approx(shares)
    assert rounds.shares([]) == {}
