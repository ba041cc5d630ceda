"""Every setting with its type, range, default and documentation; rules are in ``config.rules``."""

from itertools import chain
from typing import Annotated, Any

from pydantic import Field

from scaling_fl.config.base import Section, leaves
from scaling_fl.config.conditions import OF_INSTRUCTIONS, With, Without, WithSet
from scaling_fl.config.data_sections import DataSettings, PartitionSettings
from scaling_fl.config.evaluation_settings import EvaluationSettings
from scaling_fl.config.identity import NEWER, NOT_IDENTITY
from scaling_fl.config.load_settings import OF_LANGUAGE_MODELS, LoadSettings
from scaling_fl.config.older import in_older_names
from scaling_fl.config.own import AnyTask, Metrics, is_own
from scaling_fl.config.sections import (
    AdapterSettings,
    DownloadSettings,
    MergeSettings,
    PrivacySettings,
    ScheduleSettings,
    ServerSettings,
    Tiers,
    TierSettings,
    TrackingSettings,
    UploadSettings,
)
from scaling_fl.config.stop_settings import StopSettings
from scaling_fl.config.types import (
    Author,
    ClientIds,
    Cohorts,
    Count,
    CountOrFraction,
    DataOrder,
    Decay,
    DeviceName,
    Location,
    NonNegative,
    OptimiserName,
    PlainName,
    Positive,
    PrecisionName,
    RankChoice,
    SamplingKind,
    ScaleChoice,
    Seed,
    SiteIds,
    SmallSeed,
    WeightingName,
)

_NOT_LISTED = Without("cohorts", because="the lists name the clients of every round")
_SAMPLED = (Without("clients", because="the list names the clients of every round"), _NOT_LISTED)
_SPARSE_DOWN = WithSet(
    "download.density", "download.density_decay", because="everything is sent down otherwise"
)


class Config(Section):
    """The whole configuration of a run."""

    site_ids: SiteIds = (0,)
    """This node's sites: one local GPU (or CPU slot) id each, repeated to share a device."""
    num_rounds: Count = 3
    """Number of rounds."""
    num_local_epochs: Annotated[Count, Without("num_local_steps")] = 2
    """Passes of a client over its data in a round."""
    num_local_steps: Count | None = None
    """Optimiser steps of a client in a round, in place of num_local_epochs."""
    learning_rate: Positive = 2e-5
    """Learning rate of the clients in the first round."""
    batch_size: Count = 32
    """Training examples in a batch."""
    gradient_accumulation_steps: Count = 1
    """Batches of which a step takes the gradient; each of their examples or tokens counts alike."""
    packing: Annotated[
        bool,
        OF_INSTRUCTIONS,
        WithSet("num_local_steps", because="the number of rows of an epoch is not known before"),
        Without("length_grouped", because="rows are filled up"),
    ] = False
    """Put several conversations into each of the batch_size rows of max_seq_len tokens."""
    data_order: Annotated[
        DataOrder, WithSet("num_local_steps", because="an epoch has all examples anyway")
    ] = "fresh"
    """Take a client's examples in another order in every round, or always in that of round 1."""
    val_batch_size: Count = 512
    """Test examples in a batch."""
    max_seq_len: Annotated[int, Field(ge=3)] = 128
    """Tokens of a text that are kept, special tokens included."""
    gradient_checkpointing: Annotated[bool, OF_LANGUAGE_MODELS] = False
    """Compute a layer's activations again for its gradient: less memory, more time, equal bits."""
    optimiser: OptimiserName = "sgd"
    """Optimiser of the clients, new in every round; those of 8 bits are of bitsandbytes."""
    momentum: Annotated[Decay, With("optimiser", "sgd")] = 0.0
    """Momentum of the clients' optimiser."""
    weight_decay: NonNegative = 0.0
    """Weight decay of the optimiser (decoupled in adamw)."""
    max_grad_norm: Positive | None = None
    """Largest gradient norm; longer gradients are scaled down to it. None never clips."""
    prox_mu: NonNegative = 0.0
    """Strength of FedProx's pull towards the received state."""
    scaffold: Annotated[
        bool,
        With("optimiser", "sgd", because="only its step is a gradient times the rate"),
        Without("momentum", because="a step is then more than a gradient"),
        With("merge.method", "mean", because="corrections cancel out in a mean alone"),
        Without("client_freeze", because="clients have no gradient of what they leave alone"),
        Without(
            "privacy.clip",
            because="what clients send of their gradients is neither clipped nor noised",
        ),
    ] = False
    """Correct every client's steps by how its gradients differ from those of all (SCAFFOLD). The
    control variates that tell so travel beside the vector in fp32, both ways."""
    model: Location = "albert"
    """albert, bert, distilbert, minilm, smollm2, dinov2_small, tiny, a hub id or a local folder."""
    task_name: AnyTask = "spooky_author"
    """Task to learn, or one of your own as my_module:my_task."""
    train_path: Location | None = None
    """Training data: a local path, s3:// or gs://."""
    test_path: Location | None = None
    """Test data: a local path, s3:// or gs://; for a table, data.test_share may stand for it."""
    data_seed: Seed = 58923
    """Seed of the split over clients and of random subsets."""
    iid_split: Annotated[bool, With("partition.kind", None, "label_sorted")] = True
    """True gives every client the same mix of labels, False sorts by label first."""
    job_name: PlainName = None
    """Name of the job; starting it again with its checkpoints resumes it."""
    author: Author | None = None
    """Person who runs this; None takes USER_NAME or USER of the environment."""
    checkpoints_dir: Location | None = None
    """Folder of the checkpoints: local, s3:// or gs://; None: checkpoints/<job_name>."""
    seed: SmallSeed = 0
    """Seed of everything but the data split."""
    num_clients: Count | None = None
    """Number of clients; None makes one per site, or one per value of partition.column."""
    clients_per_round: Annotated[CountOrFraction, *_SAMPLED] = 1.0
    """Clients sampled in a round: a count, or a fraction when it has a decimal point."""
    sampling: Annotated[SamplingKind, *_SAMPLED] = "fixed"
    """Draw exactly so many clients, or each by itself so that so many are expected (poisson)."""
    clients: Annotated[ClientIds | None, _NOT_LISTED] = None
    """The clients of every round, in place of sampling."""
    cohorts: Cohorts | None = None
    """The clients of each round, in place of sampling; after the last, the first again."""
    init_from: Location | None = None
    """Checkpoints of another job, or one of them, that round 1 starts from; None: the model."""
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
    num_threads: Annotated[
        Count | None, With("device", "auto", "cpu", because="workers on GPUs do not use this")
    ] = None
    """Threads of a CPU worker; None divides the machine's cores by its workers."""
    length_grouped: bool = False
    """Put texts of similar length into a batch: less padding, a less random order."""
    per_class_metrics: bool = False
    """Report precision, recall and F1 of every class too."""
    metrics: Metrics = ()
    """Metrics of one's own that are reported too: my_module:my_metric, of the confusion matrix."""
    load: LoadSettings = LoadSettings()
    """How the weights of a base that is not trained are held in memory."""
    adapter: AdapterSettings = AdapterSettings()
    """Which parameters are trained, sent and saved."""
    download: DownloadSettings = DownloadSettings()
    """What the server sends to the clients: the global state."""
    client_freeze: Annotated[bool, _SPARSE_DOWN] = False
    """Clients change and send only the coordinates that they received."""
    server_freeze: Annotated[bool, _SPARSE_DOWN] = False
    """Choose the coordinates that are sent down once, after a first round that sends all."""
    upload: UploadSettings = UploadSettings()
    """What the clients send to the server."""
    tiers: Tiers = ()
    """Classes of clients; client c is of tier c modulo their number, unless the tiers say which."""
    tier_ranks: RankChoice = "first"
    """Which components of the adapter a tier of a smaller rank holds: the first, or the largest."""
    tier_scale: ScaleChoice | None = None
    """Scale of B A in a tier of a smaller rank: alpha / adapter.rank (adapter), or alpha over its
    own rank (own), with which one learning rate suits all ranks. None: own with flexlora alone."""
    merge: MergeSettings = MergeSettings()
    """How the clients' updates become one."""
    partition: PartitionSettings = PartitionSettings()
    """How the training data is split over the clients."""
    schedule: ScheduleSettings = ScheduleSettings()
    """How the clients' learning rate changes over the rounds."""
    privacy: PrivacySettings = PrivacySettings()
    """Differential privacy of clients or their groups: clipped updates, and noise on their sum."""
    server: ServerSettings = ServerSettings()
    """The step that turns the merged update into the next global state."""
    data: DataSettings = DataSettings()
    """What is read of a task's data, and where it is kept."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What a language model is measured on besides its loss on the test data."""
    tracking: TrackingSettings = TrackingSettings()
    """Where the record of a run is kept."""
    stop_when: StopSettings = StopSettings()
    """What ends a run before its last round; whichever comes first."""

    @property
    def partition_kind(self) -> str:
        """Resolve partition.kind, which overrules iid_split."""
        return self.partition.kind or ("iid" if self.iid_split else "label_sorted")

    def cohort_size(self, num_clients: int) -> int:
        """Count the clients of a round among num_clients (a fraction is rounded half up).

        With poisson sampling they are the expected ones, with lists of clients the most.
        """
        if self.listed_cohorts:
            return max(len(cohort) for cohort in self.listed_cohorts)
        if isinstance(self.clients_per_round, int):
            return self.clients_per_round
        return max(1, int(self.clients_per_round * num_clients + 0.5))

    @property
    def listed_cohorts(self) -> tuple[tuple[int, ...], ...]:
        """Return the lists of clients that the rounds take in turn; none if clients are sampled."""
        return self.cohorts or ((self.clients,) if self.clients else ())

    def participants(self, num_clients: int) -> list[int]:
        """List the clients, of num_clients, that can take part in a round."""
        return sorted({*chain(*self.listed_cohorts)}) or list(range(num_clients))

    @property
    def epsilon_limit(self) -> tuple[str, float | None]:
        """Return the setting that ends the run by its epsilon, and the value."""
        if self.privacy.max_epsilon is not None:
            return "privacy.max_epsilon", self.privacy.max_epsilon
        return "stop_when.epsilon", self.stop_when.epsilon

    def own_names(self) -> list[tuple[str, str]]:
        """List what the user wrote of all that is named: (dotted path, ``module:name``)."""
        given = [
            ("task_name", self.task_name),
            ("merge.method", self.merge.method),
            ("partition.kind", self.partition_kind),
            *((f"{way}.codec", getattr(self, way).codec) for way in ("download", "upload")),
            *(
                (f"tiers[{number}].{way}.codec", getattr(tier, way).codec or "")
                for number, tier in enumerate(self.tiers)
                for way in ("download", "upload")
            ),
            *(("metrics", name) for name in self.metrics),
        ]
        return [(path, name) for path, name in given if is_own(name)]

    def by_tier(self) -> "list[Config]":
        """Return the settings that the clients of each tier have; without tiers, these."""
        return [self._of(tier) for tier in self.tiers] or [self]

    @property
    def usual_tier_scale(self) -> ScaleChoice:
        """Return what tier_scale is unless it is given."""
        return "own" if self.merge.method == "flexlora" else "adapter"

    @property
    def has_own_scales(self) -> bool:
        """Say whether clients of a smaller rank train with alpha over their own rank."""
        choice = self.tier_scale or self.usual_tier_scale
        return choice == "own" and any(t.adapter.rank < self.adapter.rank for t in self.by_tier())

    def _of(self, tier: TierSettings) -> "Config":
        changes: dict[str, Any] = {}
        for way in ("download", "upload"):
            own = getattr(tier, way).model_dump(exclude_none=True)
            changes[way] = getattr(self, way).model_copy(update=own)
        if tier.rank is not None:
            changes["adapter"] = self.adapter.model_copy(update={"rank": tier.rank})
        if tier.num_local_steps is not None:
            changes["num_local_steps"] = tier.num_local_steps
        return self.model_copy(update=changes)

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide what is computed, by dotted path, for digests."""
        settings = dict(leaves(self.model_dump(mode="json", exclude={"merge"})))
        merge = {"method": self.merge.method, **self.merge.options}
        # A job that was begun with merge.divide_by must go on with its digest.
        settings |= in_older_names({f"merge.{name}": value for name, value in merge.items()})
        settings["partition.kind"] = self.partition_kind
        settings["tier_scale"] = "own" if self.has_own_scales else None
        if self.schedule.kind == self.server.schedule == "constant":
            del settings["num_rounds"]  # more rounds of a constant rate only continue the run
        return {
            path: value
            for path, value in settings.items()
            if path not in NOT_IDENTITY and (path not in NEWER or value != NEWER[path])
        }
