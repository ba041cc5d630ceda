"""Laws of the partitions: disjoint, complete, seeded, and as skewed as asked."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_fl.learning.tasks.classification.histograms import entropy_bits, label_histograms
from scaling_fl.methods.partitioning import (
    PARTITIONERS,
    owners_alike,
    partition,
)

KINDS = sorted(PARTITIONERS.keys() - {"column"})
DIRICHLET = ["dirichlet_by_class", "dirichlet_by_client"]
NEAR_EQUAL = ["iid", "label_sorted", "dirichlet_by_client"]


@st.composite
def problems(draw):
    labels = draw(st.lists(st.integers(0, 6), min_size=1, max_size=300))
    num_clients = draw(st.integers(1, min(40, len(labels))))
    return {
        "labels": np.array(labels, dtype=np.int64),
        "num_clients": num_clients,
        "min_examples": draw(st.integers(0, len(labels) // num_clients)),
        "alpha": draw(st.sampled_from([1e-6, 1e-3, 0.1, 1.0, 100.0, 1e8])),
        "seed": draw(st.integers(0, 2**31)),
    }


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80)
@given(problem=problems())
def test_every_partition_is_disjoint_complete_and_honours_the_minimum(kind, problem):
    partitions = partition(kind=kind, **problem)
    assert len(partitions) == problem["num_clients"]
    assert np.array_equal(np.sort(np.concatenate(partitions)), np.arange(len(problem["labels"])))
    for examples in partitions:
        assert examples.dtype == np.int64
        assert np.all(np.diff(examples) > 0)
        assert len(examples) >= problem["min_examples"]


@pytest.mark.parametrize("kind", NEAR_EQUAL)
@settings(max_examples=40)
@given(problem=problems())
def test_sizes_differ_by_at_most_one(kind, problem):
    sizes = [len(examples) for examples in partition(kind=kind, **problem)]
    assert max(sizes) - min(sizes) <= 1


def balanced_labels(num_examples=2000, num_labels=10):
    return np.random.default_rng(5).integers(0, num_labels, num_examples)


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_give_the_same_partition(kind):
    labels = balanced_labels()
    first, second = (partition(labels, kind=kind, num_clients=7, seed=3) for _ in range(2))
    assert same(first, second)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "label_sorted"])
def test_another_seed_gives_another_partition(kind):
    labels = balanced_labels()
    first, second = (partition(labels, kind=kind, num_clients=7, seed=seed) for seed in (3, 4))
    assert not same(first, second)


@pytest.mark.parametrize("kind", DIRICHLET)
def test_a_small_alpha_is_more_skewed_than_a_large_one(kind):
    labels = balanced_labels()

    def mean_entropy(alpha):
        partitions = partition(labels, kind=kind, num_clients=20, seed=1, alpha=alpha)
        return np.mean([entropy_bits(row) for row in label_histograms(labels, partitions, 10)])

    entropies = [mean_entropy(alpha) for alpha in (0.05, 0.5, 5.0, 500.0)]
    assert entropies == sorted(entropies)
    assert entropies[0] < 2.0
    assert entropies[-1] > 3.2


def test_label_sorted_clients_hold_contiguous_labels():
    labels = balanced_labels(400, 4)
    partitions = partition(labels, kind="label_sorted", num_clients=4, seed=0)
    assert [entropy_bits(row) < 0.7 for row in label_histograms(labels, partitions, 4)] == [
        True
    ] * 4
    assert all(labels[a].max() <= labels[b].min() for a, b in pairwise(partitions))


def test_equal_examples_of_a_label_keep_their_order_when_sorted():
    labels = np.array([1, 0, 1, 0, 1, 0])
    partitions = partition(labels, kind="label_sorted", num_clients=2, seed=0)
    assert [examples.tolist() for examples in partitions] == [[1, 3, 5], [0, 2, 4]]


def test_dirichlet_by_client_follows_each_clients_draw_when_the_pools_allow_it():
    labels = np.repeat(np.arange(4), 250)
    partitions = partition(labels, kind="dirichlet_by_client", num_clients=10, seed=2, alpha=1e8)
    histograms = label_histograms(labels, partitions, 4)
    assert np.all(np.abs(histograms - 25) <= 1)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_clients": 6, "min_examples": 2}, "needs 12 training examples, got 10"),
        ({"num_clients": 11}, "needs 11 training examples, got 10"),
        ({"num_clients": 0}, "num_clients must be at least 1, got 0"),
        ({"alpha": 0.0}, "partition.alpha must be a finite number above 0, got 0.0"),
        ({"alpha": float("nan")}, "got nan"),
        ({"min_examples": -1}, "partition.min_examples must be at least 0, got -1"),
        ({"kind": "random"}, "partition.kind must be one of iid, label_sorted"),
    ],
)
def test_what_cannot_be_met_is_named(changed, words):
    arguments = {"kind": "dirichlet_by_class", "num_clients": 2, "seed": 0, **changed}
    with pytest.raises(ValueError, match=words):
        partition(np.zeros(10, dtype=np.int64), **arguments)


def test_natural_clients_have_what_is_theirs():
    owners = np.array([2, 0, 2, 1, 0])
    partitions = partition(owners, kind="column", num_clients=3, seed=0)
    assert [examples.tolist() for examples in partitions] == [[1, 4], [3], [0, 2]]


def test_test_examples_go_to_clients_with_such_training_examples():
    train = np.array([0, 0, 0, 1, 1, 2])
    partitions = [np.array([0, 1, 3]), np.array([2, 4]), np.array([5])]
    labels = np.array([0] * 6 + [1] * 4 + [2] * 3 + [7] * 6)
    owners = owners_alike(labels, train, partitions, seed=3)
    counts = [[int(np.sum((owners == c) & (labels == k))) for k in (0, 1, 2, 7)] for c in range(3)]
    assert counts == [[4, 2, 0, 3], [2, 2, 0, 2], [0, 0, 3, 1]]
    assert np.array_equal(owners, owners_alike(labels, train, partitions, seed=3))
    assert not np.array_equal(owners, owners_alike(labels, train, partitions, seed=4))
