"""The share of each client of a cohort in the mean; the shares add up to 1."""

from collections.abc import Callable, Sequence


def by_examples(num_examples: Sequence[int]) -> list[float]:
    """Give client k the share n_k / n of its examples. Source: arXiv 1602.05629, algorithm 1."""
    total = sum(num_examples)
    return [count / total for count in num_examples]


def uniform(num_examples: Sequence[int]) -> list[float]:
    """Give each of K clients the share 1 / K, as the original system did."""
    return [1 / len(num_examples)] * len(num_examples)


WEIGHTINGS: dict[str, Callable[[Sequence[int]], list[float]]] = {
    "examples": by_examples,
    "uniform": uniform,
}
