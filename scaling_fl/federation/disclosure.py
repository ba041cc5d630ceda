"""What a round may tell whoever reads its record."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Disclosure:
    """What is told of a round beside its state; with noise, no more than epsilon covers.

    A run with noise tells the noisy states and what follows from them alone: validation metrics,
    norms of states, an adaptive clip. Times are told as well, and epsilon does not cover them: how
    long a round takes depends on who was drawn and on their examples.
    """

    of_clients: bool = True
    """What depends on single clients: their reports, the means of these, and how far they are."""
    of_bytes: bool = True
    """How many bytes were sent; with secret draws, the bytes may tell who or how many took part."""
