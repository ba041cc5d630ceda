"""A small federation in one process: the tiny model, made-up texts, and its partitions by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scaling_fl.core.state import GlobalState
from scaling_fl.federation.arrivals import Reply
from scaling_fl.federation.client import Clients, Tier
from scaling_fl.federation.client_end import Received
from scaling_fl.federation.downloads import Downloads
from scaling_fl.federation.groups import Groups
from scaling_fl.federation.link import Link
from scaling_fl.federation.server_end import ServerEnd
from scaling_fl.federation.work import LocalWork
from scaling_fl.learning.models.adapters import adapt
from scaling_fl.learning.text.tokenised import TokenisedExamples
from scaling_fl.learning.training.local import LocalTrainer
from tests.tiny_models import make_adapter, make_classification

TASK = make_classification(num_labels=3)
NUM_LABELS = 3


def make_examples(num_examples: int, *, seed: int = 0) -> TokenisedExamples:
    """Make texts of random tokens, one of which tells the label."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_examples, dtype=np.int64) % NUM_LABELS
    lengths = rng.integers(3, 12, num_examples)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    token_ids = rng.integers(20, 200, offsets[-1]).astype(np.int32)
    token_ids[offsets[:-1]] = 10 + labels
    return TokenisedExamples(
        token_ids=token_ids, offsets=offsets, labels=labels, max_seq_len=16, pad_token_id=0
    )


def make_trainer(*, adapter: str | None = None, **options: Any) -> LocalTrainer:
    """Make a trainer of the whole tiny model, or of an adapter of rank 4 and the head."""
    model = TASK.load_model()
    if adapter:
        model = adapt(model, make_adapter(kind=adapter), heads=TASK.heads(model), seed=0)
    return LocalTrainer(model, TASK.loss, **({"optimiser": "adamw"} | options))


def make_clients(
    trainer: LocalTrainer,
    partitions: list[NDArray[np.int64]],
    *,
    batch_size: int = 4,
    num_epochs: int | None = 1,
    num_steps: int | None = None,
    tier_steps: Sequence[int | None] = (),
    seed: int = 7,
    examples: TokenisedExamples | None = None,
    links: Sequence[Link] = (),
    groups: Groups | None = None,
) -> Clients:
    """Make clients with a tier for every link, which does ``num_steps`` or its ``tier_steps``.

    Without links, all clients have a plain one.
    """
    links = links or [Link(trainer.layout.size)]
    works = [
        LocalWork(batch_size=batch_size, num_epochs=num_epochs, num_steps=steps)
        for steps in tier_steps or [num_steps] * len(links)
    ]
    return Clients(
        trainer,
        examples or make_examples(48),
        partitions,
        tiers=[Tier(work=w, link=link) for w, link in zip(works, links, strict=True)],
        tier_of=[client % len(links) for client in range(len(partitions))],
        seed=seed,
        groups=groups,
    )


def even_partitions(num_clients: int, num_examples: int = 48) -> list[NDArray[np.int64]]:
    return [np.sort(part) for part in np.array_split(np.arange(num_examples), num_clients)]


def start_of(trainer: LocalTrainer) -> torch.Tensor:
    return trainer.vector.clone()


def receive(clients: Clients, vector: torch.Tensor, number: int, tier: int = 0) -> Received:
    """Send a global vector to the clients of a tier, as the round ``number`` does."""
    links = [tier.link for tier in clients.tiers]
    return Downloads(links, GlobalState(vector), number).received(tier)


def update_of(clients: Clients, reply: Reply, vector: torch.Tensor) -> torch.Tensor:
    """Decode a client's reply to a global vector, as the server does."""
    link = clients.tiers[reply.report.tier].link
    sent = ServerEnd(link).download(vector, reply.report.round)
    return ServerEnd(link).update(reply.payload, sent, vector)[0]
