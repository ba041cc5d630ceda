"""The sections of the configuration: their settings, types, ranges, defaults and documentation."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from scaling_fl.config.types import (
    AccountantName,
    AdapterKind,
    ClientIds,
    CodecName,
    Count,
    Decay,
    Delta,
    Density,
    Divisor,
    LocalFolder,
    Names,
    NonNegative,
    PartitionKind,
    Positive,
    PrivacyUnit,
    Quantile,
    ScheduleKind,
    ServerOptimiserName,
    Share,
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


class PartitionSettings(Section):
    """How the training data is split over the clients."""

    kind: PartitionKind | None = None
    """Way of splitting; None takes iid or label_sorted, as iid_split says."""
    alpha: Positive = 1.0
    """Dirichlet concentration: small values give skewed clients, large ones even clients."""
    min_examples: Count = 1
    """Fewest examples that dirichlet_by_class may leave a client with."""


class AdapterSettings(Section):
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


class DirectionSettings(Section):
    """How vectors are sent one way: the largest coordinates are kept, then written by a codec."""

    codec: CodecName = "none"
    """Number format on the wire: none is fp32; int8 and nf4 have a scale for 64 values each."""
    density: Density = 1.0
    """Share of the coordinates kept, those of largest magnitude."""
    density_decay: Density = 1.0
    """Factor of the density after every decay_every rounds."""
    decay_every: Count = 1
    """Rounds from one decay of the density to the next."""
    keep_heads: bool = False
    """Send what is trained besides the adapter whole; the density is then one of the adapter."""

    @property
    def is_sparse(self) -> bool:
        return self.density < 1.0 or self.density_decay < 1.0

    @property
    def is_lossy(self) -> bool:
        """Say whether what arrives may differ from what is sent."""
        return self.codec != "none" or self.is_sparse


class DownloadSettings(DirectionSettings):
    """What the server sends to the clients: the global state."""

    evaluate: bool = False
    """Evaluate what the clients receive, too."""


class UploadSettings(DirectionSettings):
    """What the clients send to the server."""

    values: UploadValues = "update"
    """Send what training changed (update), or the parameters that it came to (state)."""
    error_feedback: bool = False
    """Add what the codec and the density held back to the client's next upload."""


class TierDirectionSettings(Section):
    """What a tier sends or receives differently; None takes the setting of all clients."""

    codec: CodecName | None = None
    """Number format on the wire."""
    density: Density | None = None
    """Share of the coordinates kept."""


class TierSettings(Section):
    """A class of clients; None takes the setting of all clients."""

    rank: Count | None = None
    """Rank that its clients hold of the adapter's."""
    download: TierDirectionSettings = TierDirectionSettings()
    """What the server sends to them."""
    upload: TierDirectionSettings = TierDirectionSettings()
    """What they send to the server."""
    num_local_steps: Count | None = None
    """Optimiser steps of a client in a round."""
    share: Share | None = None
    """Share of all clients that are of this tier, drawn at random; the shares add up to 1."""
    clients: ClientIds | None = None
    """The clients of this tier."""


class MergeSettings(Section):
    """How the clients' updates become one."""

    divide_by: Divisor = "all"
    """Divide every coordinate by all clients of the round, or by those that sent it."""


class PrivacySettings(Section):
    """Differential privacy of clients or their groups: clipped updates, and noise on their sum."""

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
    target_quantile: Quantile | None = None
    """Share of the updates that the clip should leave alone, which it then follows from round to
    round; None keeps the clip."""
    clip_learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Step of an adaptive clip: it changes by at most about this factor's exponential a round."""
    clip_noise: Positive | None = None
    """Standard deviation of the noise on the number of updates within an adaptive clip; None: a
    20th of the updates of a round, and at least the noise multiplier."""
    unit: PrivacyUnit = "client"
    """What is protected: whole clients, or each of the groups inside every client."""
    groups_per_client: Count = 1
    """Groups that the examples of every client are dealt into, when the unit is a group."""
    groups_per_round: Count = 1
    """Groups that a client draws in a round, each of which trains from the received state."""

    @property
    def is_noisy(self) -> bool:
        return self.noise_multiplier > 0 or self.target_epsilon is not None


class ScheduleSettings(Section):
    """How the clients' learning rate changes over the rounds."""

    kind: ScheduleKind = "constant"
    """Shape of the change from learning_rate to final_learning_rate over num_rounds."""
    final_learning_rate: NonNegative = 0.0
    """Learning rate that linear and cosine end at."""


class ServerSettings(Section):
    """The step that turns the merged update into the next global state."""

    optimiser: ServerOptimiserName = "sgd"
    """Optimiser of the server; sgd with learning rate 1 is plain federated averaging."""
    learning_rate: Positive = 1.0
    """Learning rate of the server; adam, adamw, adagrad and yogi want one far below 1."""
    momentum: Decay = 0.0
    """Momentum of sgd."""
    beta1: Decay = 0.9
    """Decay of the mean update of adam, adamw and yogi."""
    beta2: Decay = 0.999
    """Decay of the mean square of adam, adamw and yogi."""
    epsilon: Annotated[float, Field(ge=1e-16)] = 1e-8
    """Added to the root of the squares (tau of FedOpt); the larger, the less the steps adapt."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay of adamw."""

    @property
    def options(self) -> dict[str, float]:
        """Collect the settings of the chosen optimiser besides its learning rate."""
        return {
            name: getattr(self, name)
            for name, optimisers in SERVER_OPTIONS.items()
            if self.optimiser in optimisers
        }


SERVER_OPTIONS: dict[str, tuple[ServerOptimiserName, ...]] = {
    "momentum": ("sgd",),
    "beta1": ("adam", "adamw", "yogi"),
    "beta2": ("adam", "adamw", "yogi"),
    "epsilon": ("adam", "adamw", "adagrad", "yogi"),
    "weight_decay": ("adamw",),
}
"""Which optimisers of the server have which settings."""


class DataSettings(Section):
    """What is read of a task's data, and where it is kept."""

    text: TextChoice | None = None
    """Columns of agnews that make the text; None takes the description."""
    max_train_examples: Count | None = None
    """Size of a random subset (by data_seed) of the training data; None takes everything."""
    max_test_examples: Count | None = None
    """Size of a random subset (by data_seed) of the test data; None takes everything."""
    cache_dir: LocalFolder | None = None
    """Folder of downloads and tokenised text; None: $SCALING_FL_CACHE or ~/.cache/scaling_fl."""


class TrackingSettings(Section):
    """Where the record of a run is kept."""

    runs_dir: LocalFolder = "runs"
    """Folder of the tracked runs, always written; a MongoDB is a mirror of it."""
