"""Histograms and entropies of labels, by hand."""

import numpy as np
import pytest

from scaling_fl.learning.tasks.classification.histograms import entropy_bits, label_histograms


def test_histograms_count_every_label_of_every_client():
    labels = np.array([0, 2, 2, 1])
    counts = label_histograms(labels, [np.array([0, 1]), np.array([2, 3])], 4)
    assert counts.tolist() == [[1, 0, 1, 0], [0, 1, 1, 0]]


@pytest.mark.parametrize(
    ("histogram", "bits"), [([4, 0], 0.0), ([0, 0], 0.0), ([3, 3], 1.0), ([1, 1, 1, 1], 2.0)]
)
def test_entropy_is_in_bits(histogram, bits):
    assert entropy_bits(np.array(histogram)) == pytest.approx(bits)
