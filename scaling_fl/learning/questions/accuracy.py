"""Accuracies of questions by subject, from counts that add up over batches and workers."""

from collections.abc import Sequence

from torch import Tensor


def counted(facts: Tensor, subjects: Tensor, num_subjects: int) -> Tensor:
    """Count for each subject how often each fact is true.

    ``facts`` is bool (facts, questions), ``subjects`` int64 (questions). Returns int64 of size
    facts * num_subjects.
    """
    counts = subjects.new_zeros(len(facts), num_subjects)
    return counts.index_add_(1, subjects, facts.long()).flatten()


def accuracies(
    name: str, asked: Sequence[int], right: Sequence[int], subjects: Sequence[str], detailed: bool
) -> dict[str, float]:
    """Return the accuracy over all questions and, if ``detailed``, that of each subject."""
    found = {name: sum(right) / sum(asked)}
    if detailed and list(subjects) != [""]:
        for subject, num_asked, num_right in zip(subjects, asked, right, strict=True):
            found[f"{name}.{subject or 'no subject'}"] = num_right / num_asked
    return found
