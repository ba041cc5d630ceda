"""The sections about data: what is read, and how the training data is split over the clients."""

from typing import Annotated

from pydantic import Field

from scaling_fl.config.base import Section
from scaling_fl.config.conditions import OF_INSTRUCTIONS, With, Without, WithSet, WithTask
from scaling_fl.config.own import AnyPartition
from scaling_fl.config.types import (
    IMAGE_TASKS,
    LANGUAGE_TASKS,
    ColumnName,
    Count,
    LocalFolder,
    Location,
    OneOrSeveral,
    Positive,
    Quantile,
    Several,
    TestOf,
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
    pooled: Annotated[float, Field(ge=0, le=1), With(".kind", "column")] = 0.0
    """Share of every client's rows that are pooled and dealt anew, to each as many as it gave:
    0 leaves people their own, and 1 makes all alike (the iid-alpha of FLASC for Reddit)."""


_OF_TABLE = With("task_name", "table")
_OF_LABELS = With("task_name", "table", "images")
_OF_IMAGES = WithTask(*IMAGE_TASKS)
_OF_OWN_INSTRUCTIONS = With("task_name", "instruction")


class DataSettings(Section):
    """What is read of a task's data, and where it is kept."""

    text: Annotated[OneOrSeveral, With("task_name", "agnews", "table")] = None
    """Columns of a table that make the text (one, or several: title,body), joined by a space; of
    agnews: description (None), title or both."""
    text_pair: Annotated[OneOrSeveral, _OF_TABLE] = None
    """Columns that make a second text, which the model sees beside the first one."""
    image: Annotated[ColumnName, With("task_name", "images")] = None
    """Column of paths of images (from the table's folder on), or of their content. None: train_path
    is a folder with a folder of images for each label."""
    label: Annotated[ColumnName, _OF_LABELS] = None
    """Column of the labels, which may be any names or numbers."""
    labels: Annotated[Several, _OF_LABELS] = None
    """All labels, in their order; None finds them in the training data and sorts them."""
    test_share: Annotated[
        Quantile | None,
        With("task_name", "table", "images", "docvqa", *LANGUAGE_TASKS),
        Without("test_path", because="the test data is the one that is named"),
    ] = None
    """Share of the training rows, drawn by data_seed, that is held out as the test data; each label
    keeps its share."""
    test_of: Annotated[TestOf, WithSet(".test_share", because="nothing is held out otherwise")] = (
        "rows"
    )
    """What test_share is a share of: rows, or the clients in partition.column. These are held out
    with all their rows, so that a model is tested by people that it has seen nothing of."""
    instruction: Annotated[OneOrSeveral, _OF_OWN_INSTRUCTIONS] = None
    """Columns that make the instruction, joined by a line's end; None finds instruction, prompt or
    question, and input."""
    response: Annotated[ColumnName, With("task_name", "instruction", "reddit")] = None
    """Column of the answers; None finds output, response, completion or answer. Of reddit the
    column of the texts; None finds body or text."""
    messages: Annotated[
        ColumnName,
        _OF_OWN_INSTRUCTIONS,
        Without("data.instruction", "data.response", because="its turns have both"),
    ] = None
    """Column of whole conversations: lists of turns with role and content (or from and value)."""
    system: Annotated[str | None, OF_INSTRUCTIONS] = None
    """What every conversation begins with that has no system's turn of its own."""
    template: Annotated[Location | None, OF_INSTRUCTIONS] = None
    """How a conversation becomes one text: chat (the tokenizer's own), alpaca (FlowerTune's) or a
    Jinja file of what is before the answer. None: chat for instruction, alpaca for the others."""
    multi_label: Annotated[bool, WithSet(".image", because="a file is in one folder alone")] = False
    """Images have any of several labels: lists, or texts with commas, semicolons or bars between.
    Their metrics are average precision and F1."""
    image_size: Annotated[Count | None, _OF_IMAGES] = None
    """Pixels of a side of the square that the model sees; None: what its image processor says."""
    augment: Annotated[bool, _OF_IMAGES] = True
    """Cut a part (8 to 100 %) out of each training image at random, and mirror half of them."""
    images: Annotated[LocalFolder | None, With("task_name", "docvqa")] = None
    """Folder of the images that the rows name; None: the folder of the table."""
    max_train_examples: Count | None = None
    """Size of a random subset (by data_seed) of the training data; None takes everything."""
    max_test_examples: Count | None = None
    """Size of a random subset (by data_seed) of the test data; None takes everything."""
    cache_dir: LocalFolder | None = None
    """Folder of downloads, tokenised text and decoded images; None: $SCALING_FL_CACHE or
    ~/.cache/scaling_fl."""
