"""The server is a sum: every worker runs this on the same state, and there is no server process."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from scaling_fl.core.exact_sum import ExactSum
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.records import ClientReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.privacy import Privacy
from scaling_fl.methods.merging import mean
from scaling_fl.methods.server_optimisers import ServerOptimiser


class TooFewClients(RuntimeError):
    """Fewer clients than ``min_clients`` sent a usable update; the global state is unchanged."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What came of one server step."""

    clients: list[ClientReport]
    update_norm: float
    drift: float | None
    """None when updates are clipped or noisy, which their reported norms do not know."""
    exchange_seconds: float


class Server:
    """Merges the updates of a round and steps the global state.

    ``scratch`` is a buffer of the vector's size that is free once all clients have trained; the
    trainer's own serves, so that the merged update takes no memory of its own.
    """

    def __init__(
        self,
        exchange: Exchange,
        optimiser: ServerOptimiser,
        scratch: Tensor,
        *,
        min_clients: int,
        privacy: Privacy | None = None,
    ) -> None:
        self._exchange, self._optimiser = exchange, optimiser
        self._scratch, self._min_clients, self._privacy = scratch, min_clients, privacy
        self._sums = ExactSum(scratch.numel(), scratch.device)

    def step(
        self,
        state: GlobalState,
        shares: Mapping[int, float],
        updates: Iterable[tuple[Tensor, ClientReport]],
    ) -> Step:
        """Add up this worker's updates as they come, merge all workers' sums, step in place.

        Raises:
            TooFewClients: naming who was left out and why.
        """
        reports, seconds = self._accumulate(shares, updates)
        # Gathering waits for the slowest worker; the exchange proper is timed from here on.
        clients = self._gather(reports)
        began = time.perf_counter()
        included = self._included_share(shares, clients)
        update = mean(
            self._sums,
            self._exchange.total,
            # A divisor that followed who was left out would tell something about the data.
            included_share=1.0 if self._privacy and self._privacy.is_noisy else included,
            out=self._scratch,
            add_noise=partial(self._add_noise, shares, state.round + 1),
        )
        norm = float(torch.linalg.vector_norm(update))
        self._optimiser.apply(state.vector, update, state.optimiser)
        return Step(
            clients=clients,
            update_norm=norm,
            drift=None if self._privacy else _drift(clients, shares, included, norm),
            exchange_seconds=seconds + time.perf_counter() - began,
        )

    def _accumulate(
        self, shares: Mapping[int, float], updates: Iterable[tuple[Tensor, ClientReport]]
    ) -> tuple[list[ClientReport], float]:
        self._sums.clear()
        reports, seconds = [], 0.0
        for update, report in updates:
            began = time.perf_counter()
            if report.failure is None:
                if self._privacy:
                    self._privacy.bound(update)
                self._sums.add(update, shares[report.client])
            reports.append(report)
            seconds += time.perf_counter() - began
        return reports, seconds

    def _add_noise(self, shares: Mapping[int, float], round_number: int, units: Tensor) -> None:
        if self._privacy:
            share = max(shares.values())  # all are equal
            self._privacy.add_noise(units, share=share, round_number=round_number)

    def _gather(self, reports: list[ClientReport]) -> list[ClientReport]:
        rows = self._exchange.gather([report.to_json() for report in reports])
        return sorted((ClientReport(**row) for row in rows), key=lambda report: report.client)

    def _included_share(self, shares: Mapping[int, float], clients: list[ClientReport]) -> float:
        usable = [report for report in clients if report.failure is None]
        if len(usable) < self._min_clients:
            reasons = "; ".join(
                f"client {r.client}: {r.failure}" for r in clients if r.failure is not None
            )
            raise TooFewClients(
                f"min_clients={self._min_clients} clients must send a usable update, got "
                f"{len(usable)} of {len(clients)} in round {clients[0].round} ({reasons}); lower "
                "learning_rate, set max_grad_norm, or lower min_clients."
            )
        if len(usable) == len(clients):
            return 1.0
        return math.fsum(shares[report.client] for report in usable)


def _drift(
    clients: list[ClientReport], shares: Mapping[int, float], included: float, norm: float
) -> float:
    """Root of the weighted mean squared distance of the updates to their mean.

    Sum of p_k |u_k - m|^2 = sum of p_k |u_k|^2 - |m|^2, so that no update is kept.
    """
    usable = (report for report in clients if report.failure is None)
    squares = math.fsum(shares[r.client] / included * r.update_norm**2 for r in usable)
    return math.sqrt(max(squares - norm**2, 0.0))
