"""Every setting with its type, range, default and documentation (the string under each field).

Rules between settings live in ``config.rules``; this module knows one setting at a time.
"""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic.fields import FieldInfo

TaskName = Literal["agnews", "yelp", "imdb", "spooky_author", "20newsgroups", "20newsgroups_topics"]
OptimiserName = Literal["sgd", "adam", "adamw"]
ServerOptimiserName = Literal["sgd"]
ScheduleKind = Literal["constant", "linear", "cosine"]
PartitionKind = Literal["iid", "label_sorted", "dirichlet_by_class", "dirichlet_by_client"]
WeightingName = Literal["examples", "uniform"]
DeviceName = Literal["auto", "cpu", "cuda"]
PrecisionName = Literal["fp32", "bf16"]
TextChoice = Literal["description", "title", "both"]

# A URL that carries a user, a password or a signature: such a value must not reach a stored run.
_USERINFO = re.compile(r"(?<=://)(?:[^/@\s]*|[^@\s]*:[^@\s]*)@")
_SIGNED = re.compile(r"([?&][\w-]*(?:signature|token|secret|password|sig|key)=)[^&\s]+", re.I)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def redact(text: str) -> str:
    """Replace the credentials inside a URL by stars."""
    return _SIGNED.sub(r"\1***", _USERINFO.sub("***@", text))


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _text_from_whole_number(value: Any) -> Any:
    """Undo Sacred's parser, which turns job_name=20261121 into a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _count_or_fraction(value: Any) -> int | float:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, float) and 0 < value <= 1:
        return value
    raise ValueError("must be a count (1, 2, ...) or a fraction with a decimal point in (0, 1]")


def _plain_name(value: Any) -> str | None:
    text = _text_from_whole_number(value)
    if text is None or (isinstance(text, str) and _PLAIN_NAME.fullmatch(text)):
        return text
    raise ValueError("must be a plain name of letters, digits, '.', '_' and '-'")


def _location(value: Any) -> Any:
    if isinstance(value, str) and redact(value) != value:
        raise ValueError("must not contain credentials")
    return value


def _local_location(value: Any) -> Any:
    if isinstance(value, str) and "://" in value:
        raise ValueError("must be a folder on this machine")
    return _location(value)


Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
CountOrFraction = Annotated[int | float, PlainValidator(_count_or_fraction)]
SiteIds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), BeforeValidator(_list_to_tuple)
]
PlainName = Annotated[str | None, PlainValidator(_plain_name)]
Author = Annotated[str, BeforeValidator(_text_from_whole_number)]
Location = Annotated[str, Field(min_length=1), BeforeValidator(_location)]
LocalFolder = Annotated[str, Field(min_length=1), BeforeValidator(_local_location)]


class Section(BaseModel):
    """The behaviour shared by the configuration and its sections."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )


class Partition(Section):
    """How the training data is split over the clients."""

    kind: PartitionKind | None = None
    """Way of splitting; None takes iid or label_sorted, as iid_split says."""
    alpha: Positive = 1.0
    """Dirichlet concentration: small values give skewed clients, large ones even clients."""
    min_examples: Count = 1
    """Fewest examples that dirichlet_by_class may leave a client with."""


class Schedule(Section):
    """How the clients' learning rate changes over the rounds."""

    kind: ScheduleKind = "constant"
    """Shape of the change from learning_rate to final_learning_rate over num_rounds."""
    final_learning_rate: NonNegative = 0.0
    """Learning rate that linear and cosine end at."""


class Server(Section):
    """The step that turns the merged update into the next global state."""

    optimiser: ServerOptimiserName = "sgd"
    """Optimiser of the server; sgd with learning rate 1 is plain federated averaging."""
    learning_rate: Positive = 1.0
    """Learning rate of the server."""


class Data(Section):
    """What is read of a task's data, and where it is kept."""

    text: TextChoice | None = None
    """Columns of agnews that make the text; None takes the description."""
    max_train_examples: Count | None = None
    """Size of a random subset (by data_seed) of the training data; None takes everything."""
    max_test_examples: Count | None = None
    """Size of a random subset (by data_seed) of the test data; None takes everything."""
    cache_dir: LocalFolder | None = None
    """Folder of downloads and tokenised text; None: $SCALING_FL_CACHE or ~/.cache/scaling_fl."""


class Tracking(Section):
    """Where the record of a run is kept."""

    runs_dir: LocalFolder = "runs"
    """Folder of the tracked runs, always written; a MongoDB is a mirror of it."""


class Config(Section):
    """The whole configuration of a run."""

    site_ids: SiteIds = (0,)
    """This node's sites: one local GPU (or CPU slot) id each, repeated to share a device."""
    num_rounds: Count = 3
    """Number of rounds."""
    num_local_epochs: Count = 2
    """Passes of a client over its data in a round."""
    num_local_steps: Count | None = None
    """Optimiser steps of a client in a round, in place of num_local_epochs."""
    learning_rate: Positive = 2e-5
    """Learning rate of the clients in the first round."""
    batch_size: Count = 32
    """Training examples in a batch."""
    val_batch_size: Count = 512
    """Test examples in a batch."""
    max_seq_len: Annotated[int, Field(ge=3)] = 128
    """Tokens of a text that are kept, special tokens included."""
    optimiser: OptimiserName = "sgd"
    """Optimiser of the clients, new in every round."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum of sgd."""
    weight_decay: NonNegative = 0.0
    """Weight decay of the optimiser (decoupled in adamw)."""
    max_grad_norm: Positive | None = None
    """Largest gradient norm; longer gradients are scaled down to it. None never clips."""
    prox_mu: NonNegative = 0.0
    """Strength of FedProx's pull towards the received state."""
    model: Location = "albert"
    """albert, bert, distilbert, minilm, tiny, a Hugging Face model id or a local folder."""
    task_name: TaskName = "spooky_author"
    """Task to learn."""
    train_path: Location | None = None
    """Training data: a local path, s3:// or gs://."""
    test_path: Location | None = None
    """Test data: a local path, s3:// or gs://."""
    data_seed: Seed = 58923
    """Seed of the split over clients and of random subsets."""
    iid_split: bool = True
    """True gives every client the same mix of labels, False sorts by label first."""
    job_name: PlainName = None
    """Name of the job; starting it again with its checkpoints resumes it."""
    author: Author | None = None
    """Person who runs this; None takes USER_NAME or USER of the environment."""
    checkpoints_dir: Location | None = None
    """Folder of the checkpoints: local, s3:// or gs://; None: checkpoints/<job_name>."""
    seed: Seed = 0
    """Seed of everything but the data split."""
    num_clients: Count | None = None
    """Number of clients; None makes one per site."""
    clients_per_round: CountOrFraction = 1.0
    """Clients sampled in a round: a count, or a fraction when it has a decimal point."""
    weighting: WeightingName = "examples"
    """What a client's update counts for: its number of examples, or the same for all."""
    min_clients: Count = 1
    """Fewest clients that must finish a round; with fewer the run fails."""
    eval_every: Count = 1
    """Rounds from one evaluation to the next; the last round is always evaluated."""
    save_every: Count = 1
    """Rounds from one checkpoint to the next; the last round is always saved."""
    keep_last: Count | None = 3
    """Number of newest checkpoints kept; None keeps all."""
    device: DeviceName = "auto"
    """Where to compute; auto takes the GPUs when there are any."""
    precision: PrecisionName = "fp32"
    """Number format of the forward and backward pass; bf16 is for GPUs and slow on CPU."""
    num_threads: Count | None = None
    """Threads of a CPU worker; None divides the machine's cores by its workers."""
    length_grouped: bool = False
    """Put texts of similar length into a batch: less padding, a less random order."""
    per_class_metrics: bool = False
    """Report precision, recall and F1 of every class too."""
    partition: Partition = Partition()
    """How the training data is split over the clients."""
    schedule: Schedule = Schedule()
    """How the clients' learning rate changes over the rounds."""
    server: Server = Server()
    """The step that turns the merged update into the next global state."""
    data: Data = Data()
    """What is read of a task's data, and where it is kept."""
    tracking: Tracking = Tracking()
    """Where the record of a run is kept."""

    @property
    def partition_kind(self) -> PartitionKind:
        """Resolve partition.kind, which overrules iid_split."""
        return self.partition.kind or ("iid" if self.iid_split else "label_sorted")

    def cohort_size(self, num_clients: int) -> int:
        """Count the clients of a round among num_clients (a fraction is rounded half up)."""
        if isinstance(self.clients_per_round, int):
            return self.clients_per_round
        return max(1, int(self.clients_per_round * num_clients + 0.5))

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide what is computed, by dotted path, for digests."""
        settings = dict(leaves(self.model_dump(mode="json")))
        settings["partition.kind"] = self.partition_kind
        if self.schedule.kind == "constant":
            del settings["num_rounds"]  # more rounds of a constant rate only continue the run
        return {path: value for path, value in settings.items() if path not in NOT_IDENTITY}


NOT_IDENTITY = frozenset(
    {"site_ids", "num_clients", "device", "num_threads"}
    | {"job_name", "author", "checkpoints_dir", "tracking.runs_dir", "data.cache_dir"}
    | {"save_every", "keep_last", "eval_every", "val_batch_size"}
    # these two only report or stop; iid_split is folded into partition.kind
    | {"per_class_metrics", "min_clients", "iid_split"}
)


def leaves(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """List the settings of nested sections as (dotted path, value)."""
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        path = f"{prefix}{key}"
        found += leaves(value, f"{path}.") if isinstance(value, dict) else [(path, value)]
    return found


def choices(field: FieldInfo) -> list[str]:
    """List the names that ``Literal[...]`` or ``Literal[...] | None`` allows."""
    parts = (field.annotation, *get_args(field.annotation))
    return [name for part in parts for name in get_args(part) if isinstance(name, str)]
