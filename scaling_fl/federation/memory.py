"""The clients' turns of one round, and what they leave for a later one."""

from typing import Any

import torch
from torch import Tensor

from scaling_fl.core.exchange import Exchange
from scaling_fl.core.records import ClientReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import Clients
from scaling_fl.federation.link import Download, Update

MASK = "download.mask"
"""Where the state remembers the vector that froze the download mask."""


class Turns:
    """One round of the clients that this worker runs.

    What a round leaves becomes part of the global state only by ``hand_on``, so that a round that
    is abandoned leaves nothing.
    """

    def __init__(self, clients: Clients, state: GlobalState, round_number: int) -> None:
        self._clients, self._state, self._round = clients, state, round_number
        self._starts: dict[int, Download] = {}
        self._residuals: dict[int, Tensor] = {}

    def start(self, tier: int) -> Download:
        """Send the state to a tier, once."""
        if tier not in self._starts:
            mask_by = self._state.memory.get(MASK)
            self._starts[tier] = self._clients.download(
                self._state.vector, self._round, tier, mask_by=mask_by
            )
        return self._starts[tier]

    def train(self, client: int, **options: Any) -> tuple[Update, ClientReport]:
        """Have a client train on what its tier received; see ``Clients.train``."""
        update, report = self._clients.train(
            self.start(self._clients.tier_of[client]),
            client,
            round_number=self._round,
            residual=self._state.memory.get(_residual(client)),
            **options,
        )
        if update.residual is not None:
            self._residuals[client] = update.residual
        return update, report

    def hand_on(self, done: list[int], exchange: Exchange) -> None:
        """Make what the round leaves part of the state, the same on all workers.

        ``done`` are the clients, of all workers, whose updates were used.
        """
        if self._round == 1 and any(tier.link.server_freeze for tier in self._clients.tiers):
            self._state.memory[MASK] = self._state.vector.clone()
        for client in done:
            if self._clients.tiers[self._clients.tier_of[client]].link.error_feedback:
                self._state.memory[_residual(client)] = self._shared(client, exchange)

    def _shared(self, client: int, exchange: Exchange) -> Tensor:
        """Give every worker a client's residual: its bits, as an integer sum with nothing else."""
        residual = self._residuals.get(client)
        if exchange.size == 1:
            assert residual is not None
            return residual
        bits = torch.zeros_like(self._state.vector, dtype=torch.int64)
        if residual is not None:
            bits.copy_(residual.view(torch.int32))
        return exchange.total(bits).to(torch.int32).view(torch.float32)


def _residual(client: int) -> str:
    return f"upload.residual.{client}"
