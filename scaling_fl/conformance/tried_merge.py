"""A merge under trial, run in rounds with real payloads, sums and workers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from scaling_fl.composition.merge import make_statistics
from scaling_fl.composition.own import find_callable
from scaling_fl.config.merges import MERGES
from scaling_fl.conformance.cases import EVERYWHERE, Case
from scaling_fl.conformance.models import Broken, check_coordinates, check_model
from scaling_fl.conformance.rounds import LAYOUT, MODEL, SIZE, Sent, merge_on
from scaling_fl.conformance.workers import on_workers
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.federation.link import Link
from scaling_fl.federation.server import Step
from scaling_fl.learning.task import Statistic
from scaling_fl.methods.merging.merge import Merge, Round, Updates
from scaling_fl.methods.pairs import coordinates_of
from scaling_fl.methods.wire.direction import PLAIN, Direction
from scaling_fl.methods.wire.holding import RankHolding

ZERO = torch.zeros(SIZE)
HOLDING = RankHolding(LAYOUT, 1)
HELD = torch.zeros(SIZE).index_fill_(0, HOLDING.coordinates(b""), 1.0)
"""1 at the coordinates that a client of rank 1 holds, 0 elsewhere."""


@dataclass(frozen=True)
class TriedMerge:
    """A merge under trial: what makes it, and what its row declares."""

    make: Callable[[], Merge]
    breaks: Mapping[str, str] = field(default_factory=dict)
    """Law -> why the merge breaks the law by its nature."""
    payloads: Mapping[str, Statistic] = field(default_factory=dict)
    """What clients send beside their updates, by name."""
    turn: Tensor | None = None
    """Marks what clients train and send in a round; None: everything."""
    personal: Tensor | None = None
    """Marks what clients train and keep; None: nothing."""
    down: Direction = PLAIN
    """How the server sends to clients."""

    @property
    def links(self) -> list[Link]:
        """The links of two tiers; clients of tier 1 hold rank 1."""
        turns = () if self.turn is None else (self.turn,)
        return [
            Link(SIZE, self.down, turns=turns, personal=self.personal, holding=held)
            for held in (None, HOLDING)
        ]

    @property
    def places(self) -> Tensor:
        """The coordinates that clients send."""
        places = self.links[0].up_coordinates(b"", 1)
        return EVERYWHERE if places is None else places

    def compare(
        self, found: Tensor, expected: Tensor, factor: float = 1.0, of_products: float = 1.0
    ) -> None:
        """Raise Broken unless two vectors are the same, but for a factor: see ``check_model``.

        Where clients do not send both A and B, what they send is compared, and not a product.
        """
        if len(self.places) == SIZE:
            check_model(found, expected, factor, of_products)
        else:
            check_coordinates(found, factor * expected)

    def of(self, clients: Sequence[Sent], start: Tensor = ZERO) -> Tensor:
        """Merge on one worker; returns the global vector after the round."""
        return self.step(clients, start)[0]

    def step(self, clients: Sequence[Sent], start: Tensor = ZERO) -> tuple[Tensor, Step]:
        merge = _checked(self.make())
        return merge_on(SingleExchange(1), merge, clients, clients, start, self.links)

    def on(self, placement: Sequence[int], case: Case) -> list[Tensor]:
        """Merge on several workers, each with its clients; returns what each came to."""

        def work(exchange: Exchange) -> Tensor:
            mine = [
                one
                for one, worker in zip(case.clients, placement, strict=True)
                if worker == exchange.rank
            ]
            merge = _checked(self.make())
            return merge_on(exchange, merge, mine, case.clients, case.start, self.links)[0]

        return on_workers(max(placement) + 2, work)


def tried_merge(name: str, breaks: Mapping[str, str] | None = None) -> TriedMerge:
    """Return a merge of the table or one of the user, which may break some laws.

    Raises:
        UserError: the function of the user cannot be found.
    """
    row = MERGES.get(name)
    if row is None:
        make = find_callable(name, "the merge")
        return TriedMerge(make, breaks or {}, make_statistics(name, MODEL))
    options = {key: option.default for key, option in row.options.items()}
    make = partial(find_callable(row.make, "the merge"), **{**options, **row.tried_with})
    turn = coordinates_of(row.turns[0], LAYOUT) if row.turns else None
    personal = coordinates_of(row.personal, LAYOUT) if row.personal else None
    return TriedMerge(make, row.breaks, make_statistics(name, MODEL), turn, personal)


def _checked(merge: Merge) -> Merge:
    """Return the merge that also says what is wrong about what it returns."""

    def checked(updates: Updates, round: Round) -> Tensor:
        start = round.start.clone()
        update = merge(updates, round)
        if not isinstance(update, Tensor) or update.dtype != torch.float32:
            what = update.dtype if isinstance(update, Tensor) else type(update).__name__
            raise Broken(f"the merge returns {what}, and must return a tensor of torch.float32")
        if update.shape != start.shape:
            raise Broken(
                f"the merge returns the shape {[*update.shape]}, and must {[*start.shape]}"
            )
        if not update.isfinite().all():
            raise Broken("the merged update is not finite")
        if not torch.equal(round.start, start):
            raise Broken("the merge writes to round.start")
        return update

    return checked
