"""How many examples of each label the clients have, and how evenly the labels are spread."""

from collections.abc import Sequence

import numpy as np

from scaling_fl.learning.task import Indices


def label_histograms(labels: Indices, clients: Sequence[Indices], num_labels: int) -> Indices:
    """Count the labels of every client, given its examples: int64 (clients, labels)."""
    counts = [np.bincount(labels[examples], minlength=num_labels) for examples in clients]
    return np.stack(counts).astype(np.int64, copy=False)


def entropy_bits(histogram: Indices) -> float:
    """Compute the entropy of a label histogram in bits; 0 for one label or no examples."""
    present = histogram[histogram > 0].astype(np.float64)
    if len(present) < 2:
        return 0.0
    shares = present / present.sum()
    return float(-(shares * np.log2(shares)).sum())
