"""The sections of the configuration: their settings, types, ranges, defaults and documentation."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from scaling_fl.config.types import (
    AccountantName,
    AdapterKind,
    CodecName,
    Count,
    Delta,
    Density,
    LocalFolder,
    Names,
    NonNegative,
    PartitionKind,
    Positive,
    ScheduleKind,
    ServerOptimiserName,
    TextChoice,
    UploadValues,
)


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


class Adapter(Section):
    """Which parameters are trained, sent and saved."""

    kind: AdapterKind = "none"
    """What is trained: everything (none), low-rank matrices and the head, or only the head."""
    rank: Count = 8
    """Rank of lora and dora."""
    alpha: Positive = 16.0
    """Scale of lora and dora: the adapter's output is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input."""
    targets: Names | None = None
    """Linear layers that get an adapter, by the end of their name (query,value) or all-linear."""
    freeze_a: bool = False
    """Train only B of every pair, and leave A at its first values (FFA-LoRA)."""
    rslora: bool = False
    """Multiply by alpha over the square root of the rank instead."""
    modules_to_save: Names = ()
    """Modules that are trained whole besides the heads, by the end of their name."""


class Direction(Section):
    """How vectors are sent one way: the largest coordinates are kept, then written by a codec."""

    codec: CodecName = "none"
    """Number format on the wire: none is fp32; int8 and nf4 have a scale for 64 values each."""
    density: Density = 1.0
    """Share of the coordinates kept, those of largest magnitude."""
    density_decay: Density = 1.0
    """Factor of the density after every decay_every rounds."""
    decay_every: Count = 1
    """Rounds from one decay of the density to the next."""

    @property
    def is_lossy(self) -> bool:
        """Say whether what arrives may differ from what is sent."""
        return self.codec != "none" or self.density < 1.0 or self.density_decay < 1.0


class Download(Direction):
    """What the server sends to the clients: the global state."""

    evaluate: bool = False
    """Evaluate what the clients receive, too."""


class Upload(Direction):
    """What the clients send to the server."""

    values: UploadValues = "update"
    """Send what training changed (update), or the parameters that it came to (state)."""


class Privacy(Section):
    """Differential privacy of whole clients: clipped updates, and noise on their sum."""

    clip: Positive | None = None
    """Largest norm of an update; longer ones are scaled down to it. None: no privacy."""
    noise_multiplier: NonNegative = 0.0
    """Standard deviation of the noise on the sum of updates, as a multiple of clip."""
    target_epsilon: Positive | None = None
    """Epsilon after num_rounds, which the noise is chosen for in place of noise_multiplier."""
    max_epsilon: Positive | None = None
    """The run ends before a round would exceed this epsilon; None never ends it early."""
    delta: Delta = 1e-5
    """Delta of the reported epsilon; less than 1 / number of clients."""
    accountant: AccountantName = "rdp"
    """Bound on epsilon: rdp, or pld, which is tighter and takes seconds."""

    @property
    def is_noisy(self) -> bool:
        return self.noise_multiplier > 0 or self.target_epsilon is not None


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
