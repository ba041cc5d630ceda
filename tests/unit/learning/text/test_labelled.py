"""Subsets are seeded, keep the labels' shares and the order; corpora are uniform."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.learning.tasks.classification import (
    agnews,
    imdb,
    spooky_author,
    twenty_newsgroups,
    twenty_newsgroups_topics,
    yelp,
)
from scaling_fl.learning.text.labelled import Corpus, Labelled, subset

CORPORA: list[Corpus] = [
    agnews,
    imdb,
    spooky_author,
    twenty_newsgroups,
    twenty_newsgroups_topics,
    yelp,
]


def make_labelled(labels):
    texts = [str(index) for index in range(len(labels))]
    return Labelled(texts, np.array(labels, dtype=np.int64))


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=100),
    size=st.integers(1, 120),
    seed=st.integers(0, 1000),
)
def test_a_subset_has_its_size_order_and_the_labels_shares(labels, size, seed):
    labelled = make_labelled(labels)
    chosen = subset(labelled, size, seed)
    places = [int(text) for text in chosen.texts]
    assert places == sorted(set(places))
    assert len(places) == min(size, len(labels))
    assert chosen.labels.tolist() == [labels[place] for place in places]
    for label in set(labels):
        exact = labels.count(label) * len(places) / len(labels)
        assert abs(chosen.labels.tolist().count(label) - exact) < len(set(labels))


def test_the_seed_and_nothing_else_decides_the_subset():
    labelled = make_labelled([0, 1] * 100)
    assert subset(labelled, 20, 1).texts == subset(labelled, 20, 1).texts
    assert subset(labelled, 20, 1).texts != subset(labelled, 20, 2).texts


def test_no_limit_keeps_everything_and_none_at_all_is_refused():
    labelled = make_labelled([0, 1])
    assert subset(labelled, None, 0) is labelled
    with pytest.raises(ValueError, match="max_examples must be at least 1, got 0"):
        subset(labelled, 0, 0)


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_corpus_offers_the_same_names(corpus):
    assert len(set(corpus.LABELS)) == len(corpus.LABELS) >= 2
    assert callable(corpus.load)
    assert callable(corpus.source_digest)
