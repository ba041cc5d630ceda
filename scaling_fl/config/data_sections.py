"""The sections about data: what is read, and how the training data is split over the clients."""

from typing import Annotated

from scaling_fl.config.base import Section
from scaling_fl.config.conditions import With, Without
from scaling_fl.config.own import AnyPartition
from scaling_fl.config.types import (
    ColumnName,
    Count,
    LocalFolder,
    OneOrSeveral,
    Positive,
    Quantile,
    Several,
)


class PartitionSettings(Section):
    """How the training data is split over the clients."""

    kind: AnyPartition | None = None
    """Way of splitting; None takes iid or label_sorted, as iid_split says; or a function of your
    own as my_module:my_split."""
    alpha: Annotated[Positive, With(".kind", "dirichlet_by_class", "dirichlet_by_client")] = 1.0
    """Dirichlet concentration: small values give skewed clients, large ones even clients."""
    min_examples: Annotated[Count, With(".kind", "dirichlet_by_class")] = 1
    """Fewest examples that the split may leave a client with."""
    column: Annotated[ColumnName, With(".kind", "column")] = None
    """Column of the training table that says whose each row is: one client for each value."""


_OF_TABLE = With("task_name", "table")


class DataSettings(Section):
    """What is read of a task's data, and where it is kept."""

    text: Annotated[OneOrSeveral, With("task_name", "agnews", "table")] = None
    """Columns of a table that make the text (one, or several: title,body), joined by a space; of
    agnews: description (None), title or both."""
    text_pair: Annotated[OneOrSeveral, _OF_TABLE] = None
    """Columns that make a second text, which the model sees beside the first one."""
    label: Annotated[ColumnName, _OF_TABLE] = None
    """Column of the labels, which may be any names or numbers."""
    labels: Annotated[Several, _OF_TABLE] = None
    """All labels, in their order; None finds them in the training data and sorts them."""
    test_share: Annotated[
        Quantile | None,
        _OF_TABLE,
        Without("test_path", because="the test data is the one that is named"),
    ] = None
    """Share of the training rows, drawn by data_seed, that is held out as the test data; each label
    keeps its share."""
    max_train_examples: Count | None = None
    """Size of a random subset (by data_seed) of the training data; None takes everything."""
    max_test_examples: Count | None = None
    """Size of a random subset (by data_seed) of the test data; None takes everything."""
    cache_dir: LocalFolder | None = None
    """Folder of downloads and tokenised text; None: $SCALING_FL_CACHE or ~/.cache/scaling_fl."""
