"""What a run chooses about its task, and what makes a task of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scaling_fl.learning.task import Metric, Split, Task


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What a run chooses of the columns of a table."""

    text: tuple[str, ...] = ()
    text_pair: tuple[str, ...] = ()
    """Columns of a second text beside the first one; empty: there is none."""
    image: str | None = None
    """A column of paths, or of the content, of images."""
    label: str | None = None
    client: str | None = None
    group: str | None = None
    """Of the training data alone: the groups that privacy protects."""
    instruction: tuple[str, ...] = ()
    response: str | None = None
    messages: str | None = None
    """A column of whole conversations."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a run chooses of the weights of a base that is not trained."""

    bits: int = 32
    """Of a weight of its linear layers: 4 (NF4), 8 (LLM.int8), 16 (bf16) or 32."""
    double_quantisation: bool = True
    """With 4 bits, quantise the scales of the blocks, too."""
    attention: str | None = None
    """What computes attention: eager, sdpa or flash_attention_2; None: transformers chooses."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """What a run chooses of its images."""

    size: int | None = None
    """Pixels of a side of what the model sees; None: what its image processor says."""
    augment: bool = True
    """Whether training images are cut at random and mirrored."""
    several_labels: bool = False
    """Whether an image may have several labels, or none."""
    folder: str | None = None
    """Where the pages are that the rows of a table name; None: beside the table."""


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """What a run asks a language model besides its test examples."""

    questions: Mapping[str, str] = field(default_factory=dict)
    """Files of multiple-choice questions by name, after which their metrics are named."""
    layout: str = "plain"
    rule: str = "likelihood"
    """``likelihood``, or ``generation`` for FlowerTune's rule."""
    max_questions: int | None = None
    max_generated: int | None = None
    """Test rows that are answered in the model's own words; None: none."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What a run chooses about its task; a family refuses what has no effect on it."""

    model: str
    """A nickname, a Hugging Face id or a folder."""
    max_seq_len: int
    seed: int
    data_seed: int
    cache_dir: Path
    paths: Mapping[Split, str | None]
    max_examples: Mapping[Split, int | None]
    text: str | None
    columns: Columns = Columns()
    load: Load = Load()
    images: ImageOptions = ImageOptions()
    test_share: float | None = None
    """Share of the training data that is held out as the test data."""
    holds_out_clients: bool = False
    """Whether that is a share of the clients, with all their rows, and not of the rows."""
    labels: tuple[str, ...] | None = None
    """All labels in their order, where they need not be found in the data."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """The user's metrics of what classifiers answer, by name."""
    system: str | None = None
    """What a conversation begins with, unless it has a system's turn of its own."""
    template: str | None = None
    """How a conversation becomes one text: chat, alpaca or a Jinja file; None: as the task does."""
    packing: bool = False
    """Put several training examples into one row of ``max_seq_len`` tokens."""
    questions: QuestionOptions = QuestionOptions()
    source: str = ""
    """The hash of the source of the user's own task, on which its examples depend."""


MakeTask = Callable[[TaskOptions], Task]
