"""A small federation in one process: the tiny model, made-up texts, and its parts by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scaling_fl.core.state import GlobalState
from scaling_fl.federation.arrivals import Reply
from scaling_fl.federation.client import Clients, LocalWork, Tier
from scaling_fl.federation.client_end import Received
from scaling_fl.federation.delivery import Delivery
from scaling_fl.federation.groups import Groups
from scaling_fl.federation.link import Link
from scaling_fl.federation.server_end import ServerEnd
from scaling_fl.learning.models.adapters import Adapter, adapt
from scaling_fl.learning.models.loading import load_classifier, load_tokenizer
from scaling_fl.learning.text.tokenised import TokenisedExamples
from scaling_fl.learning.training.local import LocalTrainer

NUM_LABELS = 3


def make_examples(num_examples: int, *, seed: int = 0) -> TokenisedExamples:
    """Make texts of random tokens, one of which tells the label."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_examples, dtype=np.int64) % NUM_LABELS
    lengths = rng.integers(3, 12, num_examples)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    token_ids = rng.integers(20, 200, offsets[-1]).astype(np.int32)
    token_ids[offsets[:-1]] = 10 + labels
    return TokenisedExamples(token_ids, offsets, labels, 16)


def make_trainer(*, adapter: str | None = None, **options: Any) -> LocalTrainer:
    """Make a trainer of the whole tiny model, or of an adapter of rank 4 and the head."""
    tokenizer = load_tokenizer("tiny", None)  # type: ignore[arg-type]
    model = load_classifier(
        "tiny",
        num_labels=NUM_LABELS,
        max_seq_len=16,
        seed=0,
        tokenizer=tokenizer,
        cache_dir=None,  # type: ignore[arg-type]
    )
    if adapter:
        wanted = Adapter(
            kind=adapter,
            rank=4,
            alpha=8.0,
            dropout=0.0,
            targets=None,
            freeze_a=False,
            rslora=False,
            modules_to_save=(),
        )
        model = adapt(model, wanted, seed=0)
    return LocalTrainer(model, **({"optimiser": "adamw"} | options))


def make_clients(
    trainer: LocalTrainer,
    parts: list[NDArray[np.int64]],
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
        parts,
        tiers=[Tier(work=w, link=link) for w, link in zip(works, links, strict=True)],
        tier_of=[client % len(links) for client in range(len(parts))],
        pad_token_id=0,
        seed=seed,
        groups=groups,
    )


def even_parts(num_clients: int, num_examples: int = 48) -> list[NDArray[np.int64]]:
    return [np.sort(part) for part in np.array_split(np.arange(num_examples), num_clients)]


def start_of(trainer: LocalTrainer) -> torch.Tensor:
    return trainer.vector.clone()


def receive(clients: Clients, vector: torch.Tensor, number: int, tier: int = 0) -> Received:
    """Send a global vector to the clients of a tier, as the round ``number`` does."""
    links = [tier.link for tier in clients.tiers]
    return Delivery(links, GlobalState(vector), number).received(tier)


def update_of(clients: Clients, reply: Reply, vector: torch.Tensor) -> torch.Tensor:
    """Decode a client's reply to a global vector, as the server does."""
    link = clients.tiers[reply.report.tier].link
    sent = ServerEnd(link).download(vector, reply.report.round)
    return ServerEnd(link).update(reply.payload, sent, vector)[0]
