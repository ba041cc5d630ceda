"""The sections of the configuration: their settings, types, ranges, defaults and documentation."""

import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, create_model

from scaling_fl.config.base import Section, options_of
from scaling_fl.config.conditions import With, Without, WithSet
from scaling_fl.config.merges import MergeName, merge_options, merges_by_coordinates
from scaling_fl.config.own import AnyCodec
from scaling_fl.config.types import (
    AccountantName,
    AdapterKind,
    ClientIds,
    Count,
    Decay,
    Delta,
    Density,
    LocalFolder,
    Names,
    NonNegative,
    Positive,
    PrivacyUnit,
    Quantile,
    ScheduleKind,
    ServerOptimiserName,
    Share,
    UploadValues,
)

_LOW_RANK = With(".kind", "lora", "dora")


class AdapterSettings(Section):
    """Which parameters are trained, sent and saved."""

    kind: AdapterKind = "none"
    """What is trained: everything (none), low-rank matrices and the head, or only the head."""
    rank: Annotated[Count, _LOW_RANK] = 8
    """Rank of the adapter."""
    alpha: Annotated[Positive, _LOW_RANK] = 16.0
    """Scale of the adapter, whose output is multiplied by alpha / rank."""
    dropout: Annotated[Decay, _LOW_RANK] = 0.0
    """Dropout on the adapter's input."""
    targets: Annotated[Names | None, _LOW_RANK] = None
    """Linear layers that get an adapter, by the end of their name (query,value) or all-linear.

    None: those that are usual for the type of the model, or all of them where none are."""
    freeze_a: Annotated[bool, _LOW_RANK] = False
    """Train only B of every pair, and leave A at its first values (FFA-LoRA)."""
    rslora: Annotated[bool, _LOW_RANK] = False
    """Multiply by alpha over the square root of the rank instead."""
    modules_to_save: Annotated[
        Names,
        With(".kind", "lora", "dora", "head", because="every module is trained otherwise"),
        With("load.bits", 32, because="what is trained has 32 bits"),
    ] = ()
    """Modules that are trained whole besides the heads, by the end of their name."""

    @property
    def scale(self) -> float:
        """Return the factor of B A. Source: arXiv 2106.09685, section 4.1; 2312.03732 (rsLoRA)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class DirectionSettings(Section):
    """How vectors are sent one way: the largest coordinates are kept, then written by a codec."""

    codec: AnyCodec = "none"
    """Number format on the wire: none is fp32; int8 and nf4 have a scale for 64 values each; or a
    codec of your own as my_module:my_codec."""
    density: Density = 1.0
    """Share of the coordinates kept, those of largest magnitude."""
    density_decay: Density = 1.0
    """Factor of the density after every decay_every rounds."""
    decay_every: Annotated[Count, WithSet(".density_decay")] = 1
    """Rounds from one decay of the density to the next."""
    keep_heads: Annotated[
        bool,
        WithSet(".density", ".density_decay", because="everything is sent otherwise"),
        With("adapter.kind", "lora", "dora", because="heads are trained beside an adapter alone"),
    ] = False
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

    evaluate: Annotated[
        bool,
        Without("tiers", because="each tier is evaluated by itself"),
        WithSet(
            ".codec",
            ".density",
            ".density_decay",
            because="clients receive the evaluated state otherwise",
        ),
    ] = False
    """Evaluate what the clients receive, too."""


class UploadSettings(DirectionSettings):
    """What the clients send to the server."""

    values: Annotated[
        UploadValues,
        WithSet(".codec", because="state and update are the same when uploads are exact"),
    ] = "update"
    """Send what training changed (update), or the parameters that it came to (state)."""
    error_feedback: Annotated[
        bool,
        WithSet(".codec", ".density", ".density_decay", because="exact uploads hold nothing back"),
    ] = False
    """Add what the codec and the density held back to the client's next upload."""


class TierDirectionSettings(Section):
    """What a tier sends or receives differently; None takes the setting of all clients."""

    codec: AnyCodec | None = None
    """Number format on the wire."""
    density: Density | None = None
    """Share of the coordinates kept."""


class TierSettings(Section):
    """A class of clients; None takes the setting of all clients."""

    rank: Annotated[Count | None, With("adapter.kind", "lora", "dora")] = None
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


Tiers = Annotated[
    tuple[TierSettings, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)
]

S = TypeVar("S", bound=Section)


def with_options_of_merges(section: type[S]) -> type[S]:
    """Add the settings of all merges, each with the merges that have the setting."""
    fields: dict[str, Any] = {
        name: (
            Annotated[option.type, With(".method", *methods)],
            Field(option.default, description=option.documentation),
        )
        for name, (option, methods) in merge_options().items()
    }
    return create_model(section.__name__, __base__=section, __doc__=section.__doc__, **fields)


@with_options_of_merges
class MergeSettings(Section):
    """How the clients' updates become one."""

    method: MergeName = "mean"
    """Merge by name, or a function of your own as my_module:my_merge."""

    on: Annotated[Literal["factors", "products"], With(".method", *merges_by_coordinates())] = (
        "factors"
    )
    """Merge the factors A and B of an adapter, or the products B A and split them again."""

    @property
    def options(self) -> dict[str, Any]:
        """Collect the settings of the chosen merge."""
        return options_of(self, "method")


_CLIPPED = WithSet(".clip", because="the clip bounds what the noise must hide")
_NOISY = WithSet(".noise_multiplier", ".target_epsilon", because="epsilon is infinite otherwise")
_ADAPTIVE = WithSet(".target_quantile", because="the clip is fixed otherwise")
_GROUPED = With(".unit", "group")


class PrivacySettings(Section):
    """Differential privacy of clients or their groups: clipped updates, and noise on their sum."""

    clip: Positive | None = None
    """Largest norm of an update; longer ones are scaled down to it. None: no privacy."""
    noise_multiplier: Annotated[
        NonNegative, _CLIPPED, Without(".target_epsilon", because="the target chooses the noise")
    ] = 0.0
    """Standard deviation of the noise on the sum of updates, as a multiple of clip."""
    target_epsilon: Annotated[Positive | None, _CLIPPED] = None
    """Epsilon after num_rounds, which the noise is chosen for in place of noise_multiplier."""
    max_epsilon: Annotated[
        Positive | None, _NOISY, Without("stop_when.epsilon", because="the two are one setting")
    ] = None
    """Another name of stop_when.epsilon."""
    delta: Annotated[Delta, _NOISY] = 1e-5
    """Delta of the reported epsilon; less than 1 / number of clients."""
    accountant: Annotated[AccountantName, _NOISY] = "rdp"
    """Bound on epsilon: rdp, or pld, which is tighter and takes seconds."""
    target_quantile: Annotated[Quantile | None, _CLIPPED] = None
    """Share of the updates that the clip should leave alone, which it then follows from round to
    round; None keeps the clip."""
    clip_learning_rate: Annotated[float, Field(gt=0, le=1), _ADAPTIVE] = 0.2
    """Step of an adaptive clip: it changes by at most about this factor's exponential a round."""
    clip_noise: Annotated[Positive | None, _NOISY, _ADAPTIVE] = None
    """Standard deviation of the noise on the number of updates within an adaptive clip; None: a
    20th of the updates of a round, and at least the noise multiplier."""
    unit: Annotated[PrivacyUnit, _CLIPPED] = "client"
    """What is protected: whole clients, or each of the groups inside every client."""
    groups_per_client: Annotated[Count, _GROUPED] = 1
    """Groups that the examples of every client are dealt into; with group_column, the most that a
    client may have."""
    groups_per_round: Annotated[Count, _GROUPED] = 1
    """Groups that a client draws in a round, each of which trains from the received state."""
    group_column: Annotated[str | None, _GROUPED] = None
    """Column of the training table with the group of each example, such as the provider of a
    document; a group is drawn with probability groups_per_round / groups_per_client."""

    @property
    def is_noisy(self) -> bool:
        return self.noise_multiplier > 0 or self.target_epsilon is not None


class ScheduleSettings(Section):
    """How the clients' learning rate changes over the rounds."""

    kind: ScheduleKind = "constant"
    """Shape of the change from learning_rate to final_learning_rate over num_rounds."""
    final_learning_rate: Annotated[NonNegative, With(".kind", "linear", "cosine")] = 0.0
    """Learning rate that the schedule ends at."""


class ServerSettings(Section):
    """The step that turns the merged update into the next global state."""

    optimiser: ServerOptimiserName = "sgd"
    """Optimiser of the server; sgd with learning rate 1 is plain federated averaging."""
    learning_rate: Positive = 1.0
    """Learning rate of the server; adam, adamw, adagrad and yogi want one far below 1."""
    schedule: ScheduleKind = "constant"
    """Shape of the change from learning_rate towards final_learning_rate over num_rounds."""
    final_learning_rate: Annotated[NonNegative, With(".schedule", "linear", "cosine")] = 0.0
    """Learning rate of the server that a round after the last one would have."""
    momentum: Annotated[Decay, With(".optimiser", "sgd")] = 0.0
    """Momentum of the updates."""
    beta1: Annotated[Decay, With(".optimiser", "adam", "adamw", "yogi")] = 0.9
    """Decay of the mean update."""
    beta2: Annotated[Decay, With(".optimiser", "adam", "adamw", "yogi")] = 0.999
    """Decay of the mean square."""
    epsilon: Annotated[
        float, Field(ge=1e-16), With(".optimiser", "adam", "adamw", "adagrad", "yogi")
    ] = 1e-8
    """Added to the root of the squares (tau of FedOpt); the larger, the less the steps adapt."""
    weight_decay: Annotated[NonNegative, With(".optimiser", "adamw")] = 0.0
    """Decoupled weight decay."""
    bias_correction: Annotated[bool | None, With(".optimiser", "adam", "adamw", "yogi")] = None
    """Correct the means for their start at 0, as torch's Adam; False begins the mean square with
    the square of epsilon, as FedOpt's paper. None: adam and adamw correct, yogi does not."""

    @property
    def options(self) -> dict[str, float]:
        """Collect the settings of the chosen optimiser besides its learning rate."""
        options = options_of(self, "optimiser")
        return {name: value for name, value in options.items() if value is not None}


class TrackingSettings(Section):
    """Where the record of a run is kept."""

    runs_dir: LocalFolder = "runs"
    """Folder of the tracked runs, always written; MongoDB and MLflow are mirrors of it."""
    tensorboard: bool = False
    """Write the metrics as TensorBoard reads them, too, into the run's folder."""
