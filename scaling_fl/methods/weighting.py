"""How much of the mean each client of a cohort is."""

from collections.abc import Callable, Sequence


def by_examples(num_examples: Sequence[int]) -> list[float]:
    """Weigh by number of examples: n_k / n. Source: arXiv 1602.05629, algorithm 1."""
    total = sum(num_examples)
    return [count / total for count in num_examples]


def uniform(num_examples: Sequence[int]) -> list[float]:
    """Weigh all clients alike: 1 / K, as the original system did."""
    return [1 / len(num_examples)] * len(num_examples)


WEIGHTINGS: dict[str, Callable[[Sequence[int]], list[float]]] = {
    "examples": by_examples,
    "uniform": uniform,
}
