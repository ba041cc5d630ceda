"""The costs of a run before it runs: bytes, privacy, disk and memory, from its configuration.

The code that sends also predicts the bytes, for the clients that the run will sample. So the
predicted bytes equal the measured ones, unless the run ends early. Where epsilon needs secret
draws, nobody can predict who is drawn; the bytes are then those expected.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from operator import add
from typing import Any

from scaling_fl.composition.budget import Budget, make_budget
from scaling_fl.composition.clients import make_cohorts, make_link, tier_of_clients
from scaling_fl.composition.data import count_clients
from scaling_fl.composition.memory import (
    FP32,
    memory_of_merging,
    memory_of_training,
    server_bytes,
)
from scaling_fl.composition.merge import make_statistics
from scaling_fl.composition.model import load_model
from scaling_fl.composition.remote import check_sealed
from scaling_fl.composition.stopping import foresee, unforeseen
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import Config, cohort_problems
from scaling_fl.config.merges import MERGES
from scaling_fl.core.errors import UserError
from scaling_fl.core.seeding import from_seed
from scaling_fl.core.vector import Layout
from scaling_fl.federation.base import BaseSizes
from scaling_fl.federation.link import Link
from scaling_fl.federation.neighbours import bytes_beside
from scaling_fl.learning.models.quantised import num_weights
from scaling_fl.methods.pairs import pairs_of
from scaling_fl.methods.wire.payloads import payload_size

NPY_HEADER = 128
"""Bytes before the values of an array in a file .npy."""
INT64 = 8
Cost = Callable[[int, int, int], tuple[int, int]]
"""(round, number of its clients, tier) -> the bytes (down, up) of a client of the tier."""


@dataclass(frozen=True, kw_only=True)
class TierCost:
    """The costs of one client of a tier in round 1."""

    num_clients: int
    parameters: int
    """The number of coordinates that a client holds."""
    download_bytes: int
    upload_bytes: int


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The costs of a run; the bytes are exact, the memory is a lower bound."""

    total_parameters: int
    trainable_parameters: int
    num_clients: int
    num_rounds: int
    ends_by: str | None
    """The budget (of bytes or epsilon) that ends the run there; None: its last round does."""
    may_end_by: list[str]
    """The rules that may end the run earlier, in a round that nobody knows before."""
    tiers: list[TierCost]
    download_bytes: list[int]
    """The bytes of every round, all clients together, from round 1."""
    upload_bytes: list[int]
    plain_bytes: int
    """The bytes of all rounds, in fp32 without codecs and masks."""
    npy_bytes: int
    """The same as Flower counts them: a file .npy for each parameter, with a header of its own."""
    checkpoint_bytes: int
    """The bytes of the tensors in the last checkpoint."""
    memory: dict[str, int]
    """The bytes that one worker needs in a training step, by their use, without the libraries."""
    noise_multiplier: float | None
    """The noise multiplier of all that a round releases; None without noise."""
    delta: float | None
    epsilon: float | None
    """Epsilon after the last round."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data, with the sums over all rounds."""
        sums = {
            "total_download_bytes": sum(self.download_bytes),
            "total_upload_bytes": sum(self.upload_bytes),
            "total_bytes": sum(self.download_bytes) + sum(self.upload_bytes),
            "memory_bytes": sum(self.memory.values()),
        }
        return asdict(self) | sums


def predict(config: Config, note: Callable[[str], None], *, is_secure: bool = False) -> Prediction:
    """Predict the costs of a run; loads its model, but of the data only what a table must tell.

    With ``is_secure`` the server is to learn the sum of the updates alone.

    Raises:
        UserError: the run itself would refuse these settings.
    """
    num_clients = count_clients(config, len(config.site_ids))
    if problems := cohort_problems(config, num_clients):
        raise UserError("; ".join(str(problem) for problem in problems))
    if is_secure:
        check_sealed(config)
    budget = make_budget(config, num_clients, note, with_secret=False)
    task = make_task(config)
    model = load_model(config, task)
    layout = Layout.of(model.named_parameters())
    if budget:
        budget.privacy(from_seed(config.seed), layout.size)  # refuses what the run would refuse
    statistics = list(make_statistics(config.merge.method, model).values())
    links = [make_link(settings, config, layout, statistics) for settings in config.by_tier()]
    tier_of = tier_of_clients(config, num_clients)
    cohorts, rate = _cohorts(config, budget, num_clients, note)
    cost = cache(partial(_of_client, links, is_secure))
    down, up = _bytes(cost, tier_of, cohorts, rate)
    base = _base(config, layout, tier_of)
    if base:
        down = list(map(add, down, base.download_bytes(cohorts)))
    num_rounds, ends_by = foresee(config, budget, list(map(add, down, up)))
    cohorts, down, up = cohorts[:num_rounds], down[:num_rounds], up[:num_rounds]
    num_trained = sum(map(len, cohorts)) * rate
    seen = len({client for cohort in cohorts for client in cohort})
    beside = server_bytes(config, layout.size, seen)
    beside += base.memory_bytes(cohorts) if base else 0
    if (personal := links[0].personal) is not None:
        beside += FP32 * int(personal.sum()) * seen
    noisy = budget is not None and budget.epsilon is not None
    return Prediction(
        total_parameters=sum(map(num_weights, model.parameters())),
        trainable_parameters=layout.size,
        num_clients=num_clients,
        num_rounds=num_rounds,
        ends_by=ends_by,
        may_end_by=unforeseen(config),
        tiers=_tiers(links, tier_of, partial(cost, 1, round(len(cohorts[0]) * rate))),
        download_bytes=down,
        upload_bytes=up,
        plain_bytes=round(2 * payload_size(layout.size, None, "none") * num_trained),
        npy_bytes=round(2 * npy_size(layout) * num_trained),
        checkpoint_bytes=FP32 * layout.size + beside,
        memory=memory_of_training(config, task, model, layout.size, beside)
        | memory_of_merging(
            config,
            model,
            links=links,
            statistics=statistics,
            largest_cohort=max(map(len, cohorts)),
            largest_upload=max(up),
        )
        | ({"original base": FP32 * base.moved} if base else {}),
        noise_multiplier=budget.total_noise if budget and noisy else None,
        delta=config.privacy.delta if noisy else None,
        epsilon=budget.epsilon(num_rounds) if budget and budget.epsilon else None,
    )


def npy_size(layout: Layout) -> int:
    """Count the bytes of a vector as Flower sends it: fp32 arrays as numpy saves them."""
    return FP32 * layout.size + NPY_HEADER * len(layout.names)


def _cohorts(
    config: Config, budget: Budget | None, num_clients: int, note: Callable[[str], None]
) -> tuple[list[list[int]], float]:
    """Draw the clients of every round; where the draws are secret, all of them at their rate."""
    if budget and budget.has_secret_draws:
        if config.sampling == "poisson" or not budget.disclosure.of_bytes:
            note("the bytes are those expected: nobody must know before or after who is drawn")
        rate = config.cohort_size(num_clients) / num_clients
        return [list(range(num_clients))] * config.num_rounds, rate
    draw = make_cohorts(config, num_clients)
    return [draw(number, "") for number in range(1, config.num_rounds + 1)], 1.0


def _of_client(
    links: list[Link], is_secure: bool, round_number: int, num_clients: int, tier: int
) -> tuple[int, int]:
    """Return the bytes (down, up) of a client of a tier, in a round of so many clients."""
    down, up = links[tier].num_bytes(round_number)
    if not is_secure:
        return down, up
    down_beside, up_beside = bytes_beside(num_clients)
    return down + down_beside, INT64 * links[tier].size + up_beside


def _bytes(
    cost: Cost, tier_of: list[int], cohorts: list[list[int]], rate: float
) -> tuple[list[int], list[int]]:
    """Return the bytes down and up of every round, all clients together, each at a rate."""
    rounds = [
        [cost(number, round(len(cohort) * rate), tier_of[client]) for client in cohort]
        for number, cohort in enumerate(cohorts, start=1)
    ]
    down, up = ([round(sum(pair[way] for pair in row) * rate) for row in rounds] for way in (0, 1))
    return down, up


def _base(config: Config, layout: Layout, tier_of: list[int]) -> BaseSizes | None:
    """Make what predicts the cost of a base that moves; None: it stays."""
    row = MERGES.get(config.merge.method)
    if row is None or row.moves_base is None:
        return None
    ranks = [tier.adapter.rank for tier in config.by_tier()]
    return BaseSizes(
        pairs_of(layout),
        [ranks[tier] for tier in tier_of],
        of_server=row.moves_base * config.adapter.rank,
    )


def _tiers(
    links: list[Link], tier_of: list[int], cost: Callable[[int], tuple[int, int]]
) -> list[TierCost]:
    counts = Counter(tier_of)
    costs = []
    for tier, link in enumerate(links):
        down, up = cost(tier)
        costs.append(
            TierCost(
                num_clients=counts[tier],
                parameters=link.num_held,
                download_bytes=down,
                upload_bytes=up,
            )
        )
    return costs
