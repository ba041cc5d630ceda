"""How well texts that a model wrote fit those that were expected."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

_UNIT = 2.0**32
"""Scores are summed in units of 2**-32, so that sums are exact; 2**31 of them fit 63 bits."""
NUM_COUNTS = 3


def is_exact_match(text: str, reference: str) -> bool:
    """Say whether two texts are equal but for spaces and line breaks at their ends."""
    return text.strip() == reference.strip()


def rouge_l(text: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of words, 0 to 1.

    Words are runs of a to z and digits in small letters, without stemming, as ``rougeL`` of the
    package rouge-score has them. Source: Lin (2004), ROUGE, section 3.
    """
    words, expected = (re.findall("[a-z0-9]+", each.lower()) for each in (text, reference))
    common = _longest_common(words, expected)
    return 2 * common / (len(words) + len(expected)) if common else 0.0


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    best = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, start=1):
            here = diagonal + 1 if word == other else max(best[place], best[place - 1])
            diagonal, best[place] = best[place], here
    return best[-1]


def count_texts(texts: Sequence[str], references: Sequence[str]) -> Tensor:
    """Count int64 of 3: texts, exact matches, and the sum of ROUGE-L in units of 2**-32."""
    pairs = list(zip(texts, references, strict=True))
    matches = sum(is_exact_match(text, reference) for text, reference in pairs)
    rouge = sum(round(rouge_l(text, reference) * _UNIT) for text, reference in pairs)
    return torch.tensor([len(pairs), matches, rouge])


def metrics_of_texts(counts: Tensor) -> dict[str, float]:
    """Turn total counts into the shares of exact matches and the mean of ROUGE-L."""
    number, matches, rouge = counts.tolist()
    return {"exact_match": matches / number, "rouge_l": rouge / _UNIT / number}
