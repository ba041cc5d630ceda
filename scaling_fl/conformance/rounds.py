"""A merge's updates and round on one worker or several, without clients, links or models."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.linears import linears_of
from scaling_fl.core.records import ClientReport
from scaling_fl.core.state import GlobalState
from scaling_fl.core.vector import Layout
from scaling_fl.federation.arrivals import Reply
from scaling_fl.federation.base import MOVED
from scaling_fl.federation.link import Link
from scaling_fl.federation.server import Server, Step
from scaling_fl.methods.merging.merge import Merge
from scaling_fl.methods.server_optimisers import sgd
from scaling_fl.methods.wire.direction import PLAIN, Payload
from scaling_fl.methods.wire.payloads import encode


def _adapter(num_in: int, rank: int, num_out: int) -> nn.Module:
    """Make a pair under the names of PEFT."""
    parts = {"lora_A": (num_in, rank), "lora_B": (rank, num_out)}
    return nn.ModuleDict(
        {
            name: nn.ModuleDict({"default": nn.Linear(*sizes, bias=False)})
            for name, sizes in parts.items()
        }
    )


torch.manual_seed(0)
MODEL = nn.ModuleDict(
    {"q": _adapter(5, 2, 7), "v": _adapter(6, 2, 3), "head": nn.Linear(9, 2, bias=False)}
)
"""Two pairs of rank 2, none of them square, and a head beside them."""
LAYOUT = Layout.of(MODEL.named_parameters())
LINEARS = linears_of(MODEL)
SIZE = LAYOUT.size


@dataclass(frozen=True)
class Sent:
    """What one client sends: its update, its share, and which coordinates (None: all)."""

    client: int
    vector: Tensor
    share: float
    sent: Tensor | None = None
    loss: float = 0.5
    tier: int = 0
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """The other payloads that the merge needs, by name."""

    def reply(self, link: Link) -> Reply:
        """Make what the client sends in round 1, over the link of its tier."""
        report = ClientReport(
            round=1,
            client=self.client,
            tier=self.tier,
            num_examples=10,
            metrics={"loss": self.loss},
            download_bytes=1,
            upload_bytes=1,
            seconds=0.1,
        )
        return Reply(
            report=report,
            payload=self._payload(link.up_coordinates(b"", 1)),
            extras={name: PLAIN.send(one, len(one)) for name, one in self.extras.items()},
        )

    def _payload(self, sendable: Tensor | None) -> Payload:
        places = torch.arange(len(self.vector)) if sendable is None else sendable
        values = self.vector[places]
        if self.sent is None:
            return PLAIN.send(values, len(values))
        indices = torch.isin(places, self.sent).nonzero().squeeze(1)
        return Payload.from_bytes(encode(values, indices=indices), len(values))


def merge_on(
    exchange: Exchange,
    merge: Merge,
    mine: Sequence[Sent],
    everyone: Sequence[Sent],
    start: Tensor | None = None,
    links: Sequence[Link] = (Link(SIZE),),
) -> tuple[Tensor, Step]:
    """Merge on one of several workers, which has the updates of ``mine``.

    Returns the vector after the round, followed by what the base moved by, if it did.
    """
    state = GlobalState(torch.zeros(SIZE) if start is None else start)
    server = Server(
        exchange,
        merge,
        sgd(1.0),
        torch.empty(SIZE),
        links=links,
        min_clients=1,
        layout=LAYOUT,
        linears=LINEARS,
    )
    shares = {one.client: one.share for one in everyone}
    replies: Iterator[Reply] = (one.reply(links[one.tier]) for one in mine)
    after, step = server.step(state, server.downloads(state), shares, replies)
    moved = after.memory.server.get(MOVED, torch.empty(0))
    return torch.cat([after.vector, moved]), step


def merged(make: Callable[[], Merge], updates: Sequence[Sent]) -> Tensor:
    """Merge on one worker; from a state of zeros, the new state is the merged update."""
    return merge_on(SingleExchange(1), make(), updates, updates)[0]


def some_updates(num_clients: int, seed: int, *, density: float | None = None) -> list[Sent]:
    """Draw updates of unequal shares; with a density, each sends some coordinates alone."""
    rng = torch.Generator().manual_seed(seed)
    weights = torch.randint(1, 50, (num_clients,), generator=rng).double()
    made = []
    for client, share in enumerate((weights / weights.sum()).tolist()):
        vector, sent = torch.randn(SIZE, generator=rng) * 0.1, None
        if density is not None:
            kept = torch.rand(SIZE, generator=rng) < density
            kept[0] = True
            vector, sent = vector * kept, kept.nonzero().squeeze(1)
        made.append(Sent(client, vector, share, sent))
    return made
