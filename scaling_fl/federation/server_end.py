"""The server's end of a link: state -> download, payload -> update."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scaling_fl.federation.link import Download, Link, count_at, select
from scaling_fl.methods.wire.direction import Payload


@dataclass(frozen=True)
class ServerEnd:
    """Sends the global vector to the clients of a link, and receives their updates."""

    link: Link

    def download(
        self, vector: Tensor, round_number: int, *, mask_by: Tensor | None = None
    ) -> Download:
        """Make the download of the global vector (fp32) for every client of this link.

        The magnitudes of ``mask_by`` (None: of ``vector``) choose the coordinates that are sent;
        it is the vector that froze the mask.
        """
        link = self.link
        choice = link.holding.choose(vector) if link.holding else b""
        held = link.holding.coordinates(choice) if link.holding else None
        always, num_always = count_at(link.always_down, held)
        payload = link.down.send(
            select(vector, held),
            link.num_down(round_number, num_always),
            rank_by=None if mask_by is None else select(mask_by, held),
            always=always,
        )
        return Download(choice, payload)

    def update(
        self, payload: Payload, sent: Download, state: Tensor, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Decode the payload of a client that received ``sent`` from the global vector ``state``.

        Returns the update (fp32, the vector's size, 0 where the client sent nothing), in the memory
        of ``out`` if given, and the coordinates that the client sent (ascending; None: all). If the
        payload carries a state, the update is (that state) - (global vector). Then the mean of the
        updates takes the global vector to the mean of the states.
        """
        trainable = sent.trainable(self.link)
        if trainable is not None:
            trainable = trainable.to(state.device)
        arrived = payload.decode(None if trainable is not None else out).to(state.device)
        update = arrived
        if trainable is not None:
            update = torch.empty_like(state) if out is None else out
            update.zero_()[trainable] = arrived
        elif out is not None and arrived is not out:
            update = out.copy_(arrived)
        if self.link.uploads_state:
            where = slice(None) if trainable is None else trainable
            update[where] -= state[where]
        indices = payload.indices
        if trainable is None or indices is None:
            return update, trainable if indices is None else indices
        return update, trainable[indices.to(trainable.device)]
