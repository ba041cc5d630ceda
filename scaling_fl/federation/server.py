"""The server is a sum: every worker runs this on the same state, and there is no server process."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from scaling_fl.core.errors import UserError
from scaling_fl.core.exact_sum import ExactSum
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.records import ClientReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.link import Update
from scaling_fl.federation.privacy import Privacy
from scaling_fl.methods.merging.means import mean, mean_of_senders
from scaling_fl.methods.server_optimisers import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class Step:
    """What came of one server step."""

    clients: list[ClientReport]
    update_norm: float
    drift: float | None
    """None when what was summed is not what the clients report the norms of."""
    exchange_seconds: float


class Server:
    """Merges the updates of a round and steps the global state.

    ``scratch`` is a buffer of the vector's size that is free once all clients have trained; the
    trainer's own serves, so that the merged update takes no memory of its own. ``by_sender``
    divides every coordinate by the clients that sent it, in place of all clients.
    """

    def __init__(
        self,
        exchange: Exchange,
        optimiser: ServerOptimiser,
        scratch: Tensor,
        *,
        min_clients: int,
        privacy: Privacy | None = None,
        by_sender: bool = False,
    ) -> None:
        self._exchange, self._optimiser = exchange, optimiser
        self._scratch, self._min_clients, self._privacy = scratch, min_clients, privacy
        size, device = scratch.numel(), scratch.device
        self._sums = ExactSum(size, device, exchange.zeros(size, device))
        self._senders = ExactSum(size, device, exchange.zeros(size, device)) if by_sender else None
        self._num_parts = self._num_within = 0

    def clip(self, state: GlobalState) -> float:
        """Return what bounds the norms of the next round's updates."""
        return self._privacy.clip_of(state) if self._privacy else math.inf

    def step(
        self,
        state: GlobalState,
        shares: Mapping[int, float],
        updates: Iterable[tuple[Update, ClientReport]],
    ) -> Step:
        """Add up this worker's updates as they come, merge all workers' sums, step in place.

        A round that nobody was sampled for leaves the vector alone, but for the noise that hides
        that nobody was.

        Raises:
            UserError: naming who was left out and why.
        """
        clip = self.clip(state)
        reports, seconds = self._accumulate(shares, updates, clip)
        # Gathering waits for the slowest worker; the exchange proper is timed from here on.
        clients = self._gather(reports)
        began = time.perf_counter()
        included = self._included_share(shares, clients)
        norm, drift = 0.0, None
        if clients or (self._privacy and self._privacy.is_noisy):
            update = self._merge(state, included, clip)
            norm = float(torch.linalg.vector_norm(update))
            self._optimiser.apply(state.vector, update, state.optimiser)
        if self._privacy:
            self._adapt_clip(state)
        elif clients and self._senders is None:
            drift = _drift(clients, shares, included, norm)
        return Step(
            clients=clients,
            update_norm=norm,
            drift=drift,
            exchange_seconds=seconds + time.perf_counter() - began,
        )

    def _accumulate(
        self,
        shares: Mapping[int, float],
        updates: Iterable[tuple[Update, ClientReport]],
        clip: float,
    ) -> tuple[list[ClientReport], float]:
        self._sums.clear()
        if self._senders:
            self._senders.clear()
        self._num_parts = self._num_within = 0
        reports, seconds = [], 0.0
        for update, report in updates:
            began = time.perf_counter()
            # Who is left out counts as not within the clip: no count depends on who it is.
            self._num_parts += update.num_parts
            if report.failure is None:
                self._add(update, shares[report.client], clip)
            reports.append(report)
            seconds += time.perf_counter() - began
        return reports, seconds

    def _add(self, update: Update, share: float, clip: float) -> None:
        if self._privacy and self._privacy.by_group:
            self._num_within += update.num_within
        elif self._privacy:
            self._num_within += self._privacy.bound(update.vector, clip)
        self._sums.add(update.vector, share)
        if self._senders:
            self._senders.add_share(share, update.sent)

    def _merge(self, state: GlobalState, included: float, clip: float) -> Tensor:
        total = self._exchange.total
        if self._senders:
            return mean_of_senders(self._sums, self._senders, total, out=self._scratch)
        if not (self._privacy and self._privacy.is_noisy):
            return mean(self._sums, total, included_share=included, out=self._scratch)
        add_noise = partial(self._privacy.add_noise, clip=clip, round_number=state.round + 1)
        return mean(
            self._sums, total, included_share=included, out=self._scratch, add_noise=add_noise
        )

    def _adapt_clip(self, state: GlobalState) -> None:
        assert self._privacy
        counts = torch.tensor([self._num_within, self._num_parts], device=self._scratch.device)
        num_within, num_parts = self._exchange.total(counts).tolist()
        self._privacy.adapt(state, num_within=num_within, num_summed=num_parts)

    def _gather(self, reports: list[ClientReport]) -> list[ClientReport]:
        rows = self._exchange.gather([report.to_json() for report in reports])
        return sorted((ClientReport(**row) for row in rows), key=lambda report: report.client)

    def _included_share(self, shares: Mapping[int, float], clients: list[ClientReport]) -> float:
        usable = [report for report in clients if report.failure is None]
        if self._privacy and self._privacy.is_noisy:
            return 1.0  # neither a divisor nor an end must tell who was left out
        # Poisson sampling may draw fewer clients than that, which is no failure.
        if len(usable) < min(self._min_clients, len(clients)):
            reasons = "; ".join(
                f"client {r.client}: {r.failure}" for r in clients if r.failure is not None
            )
            raise UserError(
                f"min_clients={self._min_clients} clients must send a usable update, got "
                f"{len(usable)} of {len(clients)} in round {clients[0].round} ({reasons}); lower "
                "learning_rate, set max_grad_norm, or lower min_clients."
            )
        if len(usable) == len(clients):
            return 1.0
        # With privacy, the shares of a cohort need not add up to 1.
        sent, asked = (math.fsum(shares[r.client] for r in some) for some in (usable, clients))
        return sent / asked


def _drift(
    clients: list[ClientReport], shares: Mapping[int, float], included: float, norm: float
) -> float:
    """Root of the weighted mean squared distance of the updates to their mean.

    Sum of p_k |u_k - m|^2 = sum of p_k |u_k|^2 - |m|^2, so that no update is kept.
    """
    usable = (report for report in clients if report.failure is None)
    squares = math.fsum(shares[r.client] / included * r.update_norm**2 for r in usable)
    return math.sqrt(max(squares - norm**2, 0.0))
