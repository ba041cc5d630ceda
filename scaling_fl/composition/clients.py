"""Configuration -> the clients: their tiers, their links, and who takes part in a round."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scaling_fl.composition import own
from scaling_fl.composition.budget import Budget
from scaling_fl.composition.data import Data
from scaling_fl.composition.merge import (
    has_models_of_tiers,
    make_statistics,
    personal_of_merge,
    turns_of_merge,
)
from scaling_fl.config import Config
from scaling_fl.config.sections import DirectionSettings
from scaling_fl.core.errors import InputError
from scaling_fl.core.seeding import Randomness, from_seed, numpy_generator
from scaling_fl.core.vector import Layout
from scaling_fl.federation.client import Clients, Tier
from scaling_fl.federation.disclosure import Disclosure
from scaling_fl.federation.groups import Groups
from scaling_fl.federation.link import Link
from scaling_fl.federation.privacy import Privacy
from scaling_fl.federation.rounds import Rounds
from scaling_fl.federation.statistics import Statistics
from scaling_fl.federation.work import LocalWork
from scaling_fl.learning.task import Examples, Grouped, Statistic
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.methods.pairs import adapter_coordinates
from scaling_fl.methods.sampling import (
    COHORT_SAMPLINGS,
    GROUP_SAMPLINGS,
    SampleCohort,
    listed_cohorts,
)
from scaling_fl.methods.schedules import SCHEDULES
from scaling_fl.methods.tiers import by_list, by_modulo, by_share
from scaling_fl.methods.weighting import WEIGHTINGS
from scaling_fl.methods.wire.direction import Direction
from scaling_fl.methods.wire.holding import RankHolding, magnitude_coordinates
from scaling_fl.methods.wire.payloads import payload_size


def make_clients(
    config: Config,
    trainer: LocalTrainer,
    data: Data,
    privacy: Privacy | None = None,
    draws: Randomness | None = None,
) -> Clients:
    """Make the clients: the link, the work and the examples of each.

    ``draws`` are secret ones; None follows the configuration's seed.
    """
    groups = None
    if privacy and privacy.by_group:
        groups = Groups(
            examples=[
                groups_of(config, data.train, each, client)
                for client, each in enumerate(data.partitions)
            ],
            per_round=config.privacy.groups_per_round,
            most=config.privacy.groups_per_client,
            sample=GROUP_SAMPLINGS[config.sampling](
                config.privacy.groups_per_round,
                config.privacy.groups_per_client,
                draws or from_seed(config.seed),
            ),
            bound=privacy.bound,
        )
    statistics = make_statistics(config.merge.method, trainer.model)
    return Clients(
        trainer,
        data.train,
        data.partitions,
        tiers=[
            Tier(
                work=_work(settings),
                link=make_link(settings, config, trainer.layout, list(statistics.values())),
                adapter_scale=_own_scale(settings, config),
            )
            for settings in config.by_tier()
        ],
        tier_of=tier_of_clients(config, len(data.partitions)),
        seed=config.seed,
        groups=groups,
        statistics=Statistics(
            by_name=statistics,
            num_examples=config.merge.options.get("statistic_examples"),
            seed=config.seed,
        ),
    )


def _own_scale(settings: Config, config: Config) -> float:
    """Return the scale of a tier's adapter over that of the model."""
    return settings.adapter.scale / config.adapter.scale if config.has_own_scales else 1.0


def _work(config: Config) -> LocalWork:
    return LocalWork(
        batch_size=config.batch_size,
        num_epochs=None if config.num_local_steps else config.num_local_epochs,
        num_steps=config.num_local_steps,
        length_grouped=config.length_grouped,
        batches_per_step=config.gradient_accumulation_steps,
        packed_width=config.max_seq_len if config.packing else None,
        is_fixed=config.data_order == "fixed",
    )


def make_link(
    settings: Config, config: Config, layout: Layout, statistics: Sequence[Statistic] = ()
) -> Link:
    """Make the link of a tier from the ``settings`` of that tier and from the ``config`` of all.

    ``statistics`` are what clients send beside their updates.
    """
    # As long as the vector, which a plan of a large model has no room for.
    keeps_heads = config.download.keep_heads or config.upload.keep_heads
    heads = ~adapter_coordinates(layout) if keeps_heads else None
    # A magnitude of 0 silences an output.
    always_down = magnitude_coordinates(layout) if settings.adapter.kind == "dora" else None
    holding = None
    if settings.adapter.rank < config.adapter.rank:
        largest = config.tier_ranks == "largest"
        holding = RankHolding(layout, settings.adapter.rank, largest=largest)
    return Link(
        layout.size,
        _direction(settings.download, "download"),
        _direction(settings.upload, "upload"),
        uploads_state=config.upload.values == "state",
        error_feedback=config.upload.error_feedback,
        client_freeze=config.client_freeze,
        server_freeze=config.server_freeze,
        holding=holding,
        always_down=heads if config.download.keep_heads else always_down,
        always_up=heads if config.upload.keep_heads else None,
        controls=config.scaffold,
        extras=tuple(statistic.size for statistic in statistics),
        turns=turns_of_merge(config, layout),
        personal=personal_of_merge(config, layout),
    )


def _direction(settings: DirectionSettings, name: str) -> Direction:
    return Direction(
        codec=own.codec(settings.codec, f"{name}.codec"),
        density=settings.density,
        density_decay=settings.density_decay,
        decay_every=settings.decay_every,
    )


def tier_of_clients(config: Config, num_clients: int) -> list[int]:
    """Return the tier of each client.

    Raises:
        InputError: a tier has no client.
    """
    found = _tier_of_clients(config, num_clients)
    for tier in range(len(config.tiers)):
        if tier not in found:
            raise InputError(
                f"tiers[{tier}] must have a client, got none of {num_clients}; drop the tier, or "
                "raise its share or num_clients."
            )
    return found


def _tier_of_clients(config: Config, num_clients: int) -> list[int]:
    if config.tiers and config.tiers[0].clients is not None:
        return by_list([tier.clients or () for tier in config.tiers])
    if config.tiers and config.tiers[0].share is not None:
        return by_share(num_clients, [tier.share or 0 for tier in config.tiers], seed=config.seed)
    return by_modulo(num_clients, max(1, len(config.tiers)))


def groups_of(
    config: Config, train: Examples, examples: NDArray[np.int64], client: int
) -> list[NDArray[np.int64]]:
    """Return the groups of a client's examples: those of a column, or dealt at random.

    Raises:
        InputError: the client has fewer examples, or more groups, than groups_per_client.
    """
    column, most = config.privacy.group_column, config.privacy.groups_per_client
    if column is None:
        return deal_groups(config, examples, client)
    if not (isinstance(train, Grouped) and train.groups is not None):
        raise InputError(
            f"privacy.group_column needs a task whose data says of which group each example is, "
            f"and {config.task_name} is none; drop it."
        )
    numbers = train.groups[examples]
    found = [examples[numbers == number] for number in np.unique(numbers)]
    if len(found) > most:
        raise InputError(
            f"privacy.groups_per_client must be at least the number of different values of column "
            f"{column} at each client, and client {client} has {len(found)}, got {most}; raise "
            "privacy.groups_per_client."
        )
    return found


def deal_groups(
    config: Config, examples: NDArray[np.int64], client: int
) -> list[NDArray[np.int64]]:
    """Deal a client's examples at random into groups; the sizes differ by at most one."""
    num_groups = config.privacy.groups_per_client
    if len(examples) < num_groups:
        raise InputError(
            f"privacy.groups_per_client must be at most the {len(examples)} examples that client "
            f"{client} has, got {num_groups}; lower it, or split the data more evenly."
        )
    order = numpy_generator(config.data_seed, "groups", client).permutation(examples)
    return [np.sort(group) for group in np.array_split(order, num_groups)]


def make_cohorts(config: Config, num_clients: int, draws: Randomness | None = None) -> SampleCohort:
    """Make the function that returns the clients of a round, as ``make_clients`` its groups."""
    if config.listed_cohorts:
        return listed_cohorts(config.listed_cohorts)
    randomness = draws or from_seed(config.seed)
    return COHORT_SAMPLINGS[config.sampling](
        num_clients, config.cohort_size(num_clients), randomness
    )


def make_rounds(
    config: Config,
    clients: Clients,
    layout: Layout,
    num_clients: int,
    budget: Budget | None,
    draws: Randomness | None = None,
) -> Rounds:
    """Make the functions of the round from the settings; ``draws`` as in ``make_clients``."""
    weigh = WEIGHTINGS[config.weighting]

    def shares(cohort: list[int]) -> dict[int, float]:
        if budget:  # with privacy, the divisor must not depend on who was drawn
            return dict.fromkeys(cohort, 1.0 / budget.num_units)
        if not cohort:
            return {}
        weights = weigh([clients.num_examples(client) for client in cohort])
        return dict(zip(cohort, weights, strict=True))

    return Rounds(
        num_rounds=config.num_rounds,
        num_clients=num_clients,
        cohort=make_cohorts(config, num_clients, draws),
        shares=shares,
        learning_rate=SCHEDULES[config.schedule.kind](
            config.learning_rate, config.schedule.final_learning_rate, config.num_rounds
        ),
        eval_every=config.eval_every,
        epsilon=budget.epsilon if budget else None,
        plain_bytes=payload_size(layout.size, None, "none"),
        evaluates_download=config.download.evaluate or has_models_of_tiers(config),
        disclosure=budget.disclosure if budget else Disclosure(),
    )
