"""Who takes part in a round, as far as privacy is concerned: it decides what a round costs.

An epsilon says nothing without its neighbouring relation, and that follows from the sampling:

- ``add_or_remove_one``: with or without one client, that is, its update or none. The sum of clipped
  updates moves by at most clip.
- ``replace_one``: one client's data for any other; the number of clients is public. The sum moves
  by up to 2 * clip, so at equal noise epsilon is about twice as large and promises about twice as
  much. Do not compare the two.

Sampling helps only while nobody learns who was sampled.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

Neighbours = Literal["add_or_remove_one", "replace_one"]


@dataclass(frozen=True)
class Everyone:
    """All clients take part in every round."""

    neighbours: ClassVar[Neighbours] = "add_or_remove_one"


@dataclass(frozen=True)
class Poisson:
    """Every client takes part with probability ``rate``, independently of all others."""

    rate: float
    neighbours: ClassVar[Neighbours] = "add_or_remove_one"

    def __post_init__(self) -> None:
        _check_rate("the sampling rate", self.rate)


@dataclass(frozen=True)
class FixedSize:
    """``num_sampled`` of ``num_total`` clients take part, drawn uniformly without replacement.

    Not Poisson sampling with rate k/n: whoever leaves the cohort makes room for somebody else.
    """

    num_sampled: int
    num_total: int
    neighbours: ClassVar[Neighbours] = "replace_one"

    def __post_init__(self) -> None:
        if not 1 <= self.num_sampled <= self.num_total:
            raise ValueError(
                f"a sample must have 1 to {self.num_total} members, got {self.num_sampled}; "
                "change clients_per_round."
            )


@dataclass(frozen=True)
class Nested:
    """Clients take part, then each draws among its groups; protected is one group of a client.

    ``client_rate`` is the probability that a client takes part, by any draw that does not depend
    on the groups (K of N clients: K/N). ``groups`` is the draw within a client: for FixedSize, of
    the client with the fewest groups. One group's clipped update is one term of the sum.

    The groups of a client come and go together, and the others' updates may show whether it took
    part. So this grants the adversary who took part: of the rounds, a share of ``client_rate``
    costs what ``groups`` alone costs, and the others nothing. That is the exact worst case when a
    client's other groups outweigh the noise. ``Poisson`` with the product of both rates, as the
    PFL-DocVQA organisers have it (arXiv 2312.10108), is sound only if all groups are drawn
    independently, those of one client included: their settings for epsilon 1, 4 and 8 come to
    1.98, 6.13 and 10.93.
    """

    client_rate: float
    groups: Everyone | Poisson | FixedSize

    def __post_init__(self) -> None:
        _check_rate("the clients' sampling rate", self.client_rate)

    @property
    def neighbours(self) -> Neighbours:
        """Add or remove, or replace, one group; never a whole client."""
        return self.groups.neighbours


Sampling = Everyone | Poisson | FixedSize | Nested


def _check_rate(name: str, rate: float) -> None:
    if not 0 < rate <= 1:
        raise ValueError(f"{name} must be in (0, 1], got {rate}; 1 means always.")
