"""The server's end of a link: state -> download, payload -> update."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scaling_fl.federation.link import Download, Link, count_at, select
from scaling_fl.methods.wire.direction import PLAIN, Payload


@dataclass(frozen=True)
class ServerEnd:
    """Sends the global vector to the clients of a link, and receives their updates."""

    link: Link

    def download(
        self,
        vector: Tensor,
        round_number: int,
        *,
        mask_by: Tensor | None = None,
        control: Tensor | None = None,
    ) -> Download:
        """Make the download of the global vector (fp32) for every client of this link.

        The magnitudes of ``mask_by`` (None: of ``vector``) choose the coordinates that are sent;
        it is the vector that froze the mask. ``control`` is the server's control variate (None:
        zeros), which is sent if the link has control variates.
        """
        link = self.link
        choice = link.holding.choose(vector) if link.holding else b""
        where = link.down_coordinates(choice, round_number)
        always, num_always = count_at(link.always_down, where)
        values = select(vector, where)
        payload = link.down.send(
            values,
            link.num_down(values.numel(), round_number, num_always),
            rank_by=None if mask_by is None else select(mask_by, where),
            always=always,
        )
        beside = None
        if link.controls:
            control = torch.zeros_like(vector) if control is None else control
            beside = PLAIN.send(control, link.size)
        return Download(choice, payload, round_number, beside)

    def update(
        self, payload: Payload, sent: Download, state: Tensor, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Decode the payload of a client that received ``sent`` from the global vector ``state``.

        Returns the update (fp32, the vector's size, 0 where the client sent nothing), in the memory
        of ``out`` if given, and the coordinates that the client sent (ascending; None: all). If the
        payload carries a state, the update is (that state) - (global vector). Then the mean of the
        updates takes the global vector to the mean of the states.
        """
        sendable = sent.sendable(self.link)
        if sendable is not None:
            sendable = sendable.to(state.device)
        arrived = payload.decode(None if sendable is not None else out).to(state.device)
        update = arrived
        if sendable is not None:
            update = torch.empty_like(state) if out is None else out
            update.zero_()[sendable] = arrived
        elif out is not None and arrived is not out:
            update = out.copy_(arrived)
        if self.link.uploads_state:
            where = slice(None) if sendable is None else sendable
            update[where] -= state[where]
        indices = payload.indices
        if sendable is None or indices is None:
            return update, sendable if indices is None else indices
        return update, sendable[indices.to(sendable.device)]
