"""The server is a sum: every worker runs this on the same state, and there is no server process."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scaling_fl.core.errors import UserError
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.linears import Linear
from scaling_fl.core.records import ClientReport
from scaling_fl.core.seeding import derive
from scaling_fl.core.state import GlobalState, Memory, Tensors
from scaling_fl.core.vector import Layout
from scaling_fl.federation.arrivals import Arrivals, Decode, Reply
from scaling_fl.federation.base import Move, base_after
from scaling_fl.federation.downloads import MASK, Downloads
from scaling_fl.federation.link import Link
from scaling_fl.federation.memory import memories_of_all
from scaling_fl.federation.merge_round import Cohort, ExactSums, MergeRound
from scaling_fl.federation.privacy import Guard, Privacy
from scaling_fl.federation.scaffold import CONTROL, Controls
from scaling_fl.federation.sealed import SealedSum
from scaling_fl.federation.server_end import ServerEnd
from scaling_fl.methods.merging.merge import Merge, Update
from scaling_fl.methods.merging.residual import residual
from scaling_fl.methods.pairs import Pair, adapter_coordinates, pairs_of
from scaling_fl.methods.server_optimisers import ServerOptimiser, within


@dataclass(frozen=True, kw_only=True)
class Step:
    """The results of a server step beside the next state."""

    clients: list[ClientReport]
    update_norm: float
    unmoved: str
    """What kept every value, see ``RoundReport``."""
    metrics: dict[str, float]
    """The metrics that the merge reports."""
    exchange_seconds: float
    """The time for sums and for the server's optimiser, without training and waiting."""


NO_LAYOUT = Layout((), ())
"""Of a vector whose coordinates are all that is known of it."""


def keeps_factors(pairs: Sequence[Pair], links: Sequence[Link]) -> bool:
    """Say whether a worker keeps A and B of its clients in a round, for ``merge.residual``.

    With privacy it does not, because the residual depends on single clients.
    """
    have_a = bool(pairs) and all(pair.a is not None for pair in pairs)
    return have_a and all(link.personal is None for link in links)


class Server:
    """Merges the updates of a round and makes the next global state.

    ``scratch`` is a buffer of the vector's size that is free after all clients have trained: the
    trainer's vector, so that the merged update needs no further memory. ``layout`` is that of the
    vector and ``linears`` are the linear layers in it, for the merges that need to know them.
    """

    def __init__(
        self,
        exchange: Exchange,
        merge: Merge,
        optimiser: ServerOptimiser,
        scratch: Tensor,
        *,
        links: Sequence[Link],
        min_clients: int,
        privacy: Privacy | None = None,
        seed: int = 0,
        layout: Layout = NO_LAYOUT,
        linears: Sequence[Linear] = (),
        controls: Controls | None = None,
        sealed: SealedSum | None = None,
    ) -> None:
        self._exchange, self._merge, self._optimiser = exchange, merge, optimiser
        self._scratch, self._links = scratch, links
        self._min_clients, self._privacy = min_clients, privacy
        self._seed, self._controls, self._sealed = seed, controls, sealed
        self._pairs, self._tensors, self._linears = pairs_of(layout), layout.places, linears
        marks = adapter_coordinates(layout)
        is_part = bool(marks.any()) and not marks.all()
        self._adapter = marks.to(scratch.device) if is_part else None
        self._sums = ExactSums(exchange, scratch.numel(), scratch.device)
        self._buffers: list[Tensor] = []
        sees_each = privacy is None and sealed is None
        self._merges_factors = sees_each and keeps_factors(self._pairs, links)

    def downloads(self, state: GlobalState) -> Downloads:
        """Return the downloads of the round after ``state``."""
        return Downloads(self._links, state, state.round + 1)

    def clip(self, state: GlobalState) -> float:
        """Return the largest norm of an update in the round after ``state``."""
        return self._privacy.clip_of(state) if self._privacy else math.inf

    def step(
        self,
        state: GlobalState,
        downloads: Downloads,
        shares: Mapping[int, float],
        replies: Iterable[Reply],
    ) -> tuple[GlobalState, Step]:
        """Merge the updates of all workers' clients and return the next state.

        ``replies`` are the replies of this worker's clients; the clients may train while they are
        read. ``shares`` are the shares of all clients of the round in the mean. Without clients,
        the vector stays as it is; with privacy it gets noise, which hides that there were none.

        Raises:
            UserError: too few clients sent a usable update; the text says which ones and why.
        """
        began = time.perf_counter()
        arrivals, guard, round = self._begin(state, downloads, shares, replies)
        vector, optimiser, norm = state.vector, state.optimiser, 0.0
        if shares or (guard and guard.is_noisy):
            update = self._merge(arrivals, round)
            if self._merges_factors:
                round.report("merge.residual", residual(update, round, round.moved))
            norm, vector, optimiser = self._advance(state, update)
        reports = round.cohort.reports
        after = GlobalState(
            vector,
            optimiser,
            self._memory_after(state, vector, arrivals, round.cohort, guard, round.base_move),
            round=state.round + 1,
            total_bytes=state.total_bytes + sum(r.download_bytes + r.upload_bytes for r in reports),
            digest=state.digest,
        )
        elsewhere = arrivals.seconds + round.waiting_seconds
        return after, Step(
            clients=reports,
            update_norm=norm,
            unmoved=self._unmoved(state.vector, vector) if shares else "",
            metrics={} if guard or self._sealed else round.metrics,  # they depend on single clients
            exchange_seconds=time.perf_counter() - began - elsewhere,
        )

    def _begin(
        self,
        state: GlobalState,
        downloads: Downloads,
        shares: Mapping[int, float],
        replies: Iterable[Reply],
    ) -> tuple[Arrivals, Guard | None, MergeRound]:
        """Make what a step needs of its round; no client has trained by then."""
        factors: dict[int, list[Tensor]] = {}

        def hear(update: Update) -> None:
            if self._controls:
                self._controls.add(update)
            if self._merges_factors:
                factors[update.client] = self._factors(update, state, downloads)

        decode = self._decoder(state, downloads)
        arrivals = Arrivals(replies, shares, decode, self._scratch, self._buffers, hear)
        guard = self._privacy.guard(state) if self._privacy else None
        round = MergeRound(
            self._exchange,
            self._sums,
            self._scratch,
            lambda: self._gather_cohort(shares, arrivals),
            guard.protect if guard else lambda total: total,
            seed=derive(self._seed, "round", state.round + 1),
            start=state.vector,
            pairs=self._pairs,
            tensors=self._tensors,
            linears=self._linears,
            trained=lambda update: self._trained(update, state, downloads),
            factors=factors,
            sealed=self._sealed,
        )
        return arrivals, guard, round

    def _advance(self, state: GlobalState, update: Tensor) -> tuple[float, Tensor, Tensors]:
        """Step along the update; returns its norm, the vector and the optimiser's state."""
        optimiser = self._optimiser
        turn = self._links[0].turn(state.round + 1)  # that of all tiers
        if turn is not None:
            turn = turn.to(update.device)
            update.mul_(turn)  # the noise of privacy is everywhere
            optimiser = within(turn, optimiser)
        norm = float(torch.linalg.vector_norm(update))
        return norm, *optimiser.step(state.vector, update, state.optimiser)

    def _unmoved(self, before: Tensor, after: Tensor) -> str:
        if torch.equal(before, after):
            return "the global state"
        part = self._adapter
        if part is not None and torch.equal(before[part], after[part]):
            return "the adapter"
        return ""

    def _decoder(self, state: GlobalState, downloads: Downloads) -> Decode:
        def decode(reply: Reply, out: Tensor) -> tuple[Tensor, Tensor | None]:
            tier = reply.report.tier
            end = ServerEnd(self._links[tier])
            return end.update(reply.payload, downloads.sent(tier), state.vector, out)

        return decode

    def _trained(self, update: Update, state: GlobalState, downloads: Downloads) -> Tensor:
        # Not from what the client received: the mask of its download would be a part of its move.
        trained = state.vector + update.vector
        held = self._links[update.tier].held(downloads.sent(update.tier).choice)
        if held is None:
            return trained
        held = held.to(trained.device)
        return torch.zeros_like(trained).index_copy_(0, held, trained[held])

    def _factors(self, update: Update, state: GlobalState, downloads: Downloads) -> list[Tensor]:
        """Return A and B of each pair, flat, by an update."""
        trained = self._trained(update, state, downloads)
        return [torch.cat([trained[pair.a], trained[pair.b]]) for pair in self._pairs]

    def _gather_cohort(self, shares: Mapping[int, float], arrivals: Arrivals) -> Cohort:
        """Wait for the slowest worker, and gather the reports of all workers."""
        mine = [
            {"report": report.to_json(), "memory": _shapes(arrivals.memories.get(report.client))}
            for report in arrivals.reports
        ]
        rows = self._exchange.gather(mine)
        reports = [ClientReport.from_json(row["report"]) for row in rows]
        reports.sort(key=lambda report: report.client)
        return Cohort(
            reports,
            shares,
            self._divisor(shares, reports),
            {row["report"]["client"]: row["memory"] for row in rows},
        )

    def _divisor(self, shares: Mapping[int, float], reports: list[ClientReport]) -> float:
        usable = [report for report in reports if report.failure is None]
        if self._privacy and self._privacy.is_noisy:
            return 1.0  # neither the divisor nor an error may reveal who was left out
        # Poisson sampling may draw fewer clients than min_clients; that is no failure.
        if len(usable) < min(self._min_clients, len(reports)):
            reasons = "; ".join(
                f"client {r.client}: {r.failure}" for r in reports if r.failure is not None
            )
            raise UserError(
                f"min_clients={self._min_clients} clients must send a usable update, got "
                f"{len(usable)} of {len(reports)} in round {reports[0].round} ({reasons}); lower "
                "learning_rate, set max_grad_norm, or lower min_clients."
            )
        if len(usable) == len(reports):
            return 1.0
        # With privacy, the shares of a cohort need not add up to 1.
        remaining = math.fsum(shares[r.client] for r in usable)
        return remaining / math.fsum(shares[r.client] for r in reports)

    def _memory_after(
        self,
        state: GlobalState,
        vector: Tensor,
        arrivals: Arrivals,
        cohort: Cohort,
        guard: Guard | None,
        move: Move | None,
    ) -> Memory:
        of_server = base_after(state.memory.server, move, cohort.shares)
        if state.round == 0 and any(link.server_freeze for link in self._links):
            of_server[MASK] = vector
        if guard:
            num_unclipped = guard.num_unclipped + arrivals.num_unclipped
            counts = torch.tensor([num_unclipped, arrivals.num_units], device=vector.device)
            of_server |= guard.remember(*self._exchange.total(counts).tolist())
        if self._controls:
            of_server[CONTROL] = self._controls.after(state.memory.server.get(CONTROL))
        of_clients = memories_of_all(
            arrivals.memories, cohort.memories, self._exchange, vector.device
        )
        return Memory(of_server, {**state.memory.clients, **of_clients})


def _shapes(tensors: Tensors | None) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in (tensors or {}).items()}
