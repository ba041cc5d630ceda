"""How near an answer comes to those that were expected, by the rules of the competition.

Source: Biten et al., "Scene text visual question answering", arXiv 1905.13648 (average normalised
Levenshtein similarity), as PFL-DocVQA (arXiv 2312.10108) counts it.
"""

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

_LEAST = 0.5
"""What is less similar than that is another answer, and counts nothing."""
_NO_ANSWER = "none"


def is_exact(answers: Sequence[str], written: str) -> bool:
    """Say whether an answer is one of those expected, whatever its case and outer spaces."""
    said = _plain(written)
    return said != _NO_ANSWER and said in map(_plain, answers)


def anls(answers: Sequence[str], written: str) -> float:
    """Return the similarity to the nearest of the answers expected: 0, or from 0.5 to 1.

    It is 1 less the edit distance over the length of the longer text. An empty answer and the word
    "none" are similar to nothing.
    """
    said = _plain(written)
    if said in ("", _NO_ANSWER):
        return 0.0
    nearest = max((_similarity(_plain(answer), said) for answer in answers), default=0.0)
    return nearest if nearest >= _LEAST else 0.0


def _similarity(answer: str, said: str) -> float:
    return 1 - Levenshtein.distance(answer, said) / max(len(answer), len(said))


def _plain(text: str) -> str:
    return text.lower().strip()
