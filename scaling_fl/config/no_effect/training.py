"""Settings of training, sampling and data that would do nothing."""

from scaling_fl.config.no_effect.rule import NoEffect
from scaling_fl.config.schema import Config


def _takes_several_steps(config: Config) -> bool:
    return any(tier.num_local_steps != 1 for tier in config.by_tier())


TRAINING = (
    NoEffect(
        "momentum",
        "optimiser",
        lambda c: c.optimiser == "sgd",
        "must be 0 unless optimiser is sgd",
        "set optimiser=sgd or leave momentum at 0",
    ),
    NoEffect(
        "momentum",
        "num_local_steps",
        lambda c: _takes_several_steps(c) or c.optimiser != "sgd",
        "must be 0 when a client takes a single step, which it cannot change",
        "raise num_local_steps or leave momentum at 0",
    ),
    NoEffect(
        "prox_mu",
        "num_local_steps",
        _takes_several_steps,
        "must be 0 when a client takes a single step, which it cannot change",
        "raise num_local_steps or leave prox_mu at 0",
    ),
    NoEffect(
        "num_local_epochs",
        "num_local_steps",
        lambda c: any(tier.num_local_steps is None for tier in c.by_tier()),
        "must be left alone when num_local_steps is set",
        "give one of the two",
    ),
    NoEffect(
        "schedule.final_learning_rate",
        "schedule.kind",
        lambda c: c.schedule.kind != "constant",
        "must be 0 when the learning rate is constant",
        "set schedule.kind=linear or cosine, or leave schedule.final_learning_rate at 0",
    ),
    NoEffect(
        "partition.alpha",
        "partition.kind",
        lambda c: c.partition_kind.startswith("dirichlet"),
        "must be left alone unless partition.kind is a Dirichlet split",
        "set partition.kind=dirichlet_by_class or dirichlet_by_client,"
        " or leave partition.alpha at 1.0",
    ),
    NoEffect(
        "partition.min_examples",
        "partition.kind",
        lambda c: c.partition_kind == "dirichlet_by_class",
        "must be left alone unless partition.kind is dirichlet_by_class",
        "set partition.kind=dirichlet_by_class or leave partition.min_examples at 1",
    ),
    NoEffect(
        "iid_split",
        "partition.kind",
        lambda c: c.partition.kind in (None, "label_sorted"),
        "must be True when partition.kind names another split",
        "drop iid_split or partition.kind",
    ),
    NoEffect(
        "data.text",
        "task_name",
        lambda c: c.task_name == "agnews",
        "must be None unless task_name is agnews",
        "set task_name=agnews or drop data.text",
    ),
    NoEffect(
        "clients_per_round",
        "clients",
        lambda c: c.clients is None,
        "must be left alone when clients names those of every round",
        "drop clients_per_round or clients",
    ),
    NoEffect(
        "clients_per_round",
        "cohorts",
        lambda c: c.cohorts is None,
        "must be left alone when cohorts lists the clients of every round",
        "drop clients_per_round or cohorts",
    ),
    NoEffect(
        "sampling",
        "clients",
        lambda c: c.clients is None,
        "must be fixed when clients names those of every round",
        "drop sampling or clients",
    ),
    NoEffect(
        "sampling",
        "cohorts",
        lambda c: c.cohorts is None,
        "must be fixed when cohorts lists the clients of every round",
        "drop sampling or cohorts",
    ),
    NoEffect(
        "clients",
        "cohorts",
        lambda c: c.cohorts is None,
        "must be None when cohorts lists the clients of every round",
        "give one of the two",
    ),
    NoEffect(
        "cohorts",
        "num_rounds",
        lambda c: c.cohorts is None or len(c.cohorts) <= c.num_rounds,
        "must not list more rounds than there are",
        "raise num_rounds or shorten cohorts",
    ),
    NoEffect(
        "num_threads",
        "device",
        lambda c: c.device != "cuda",
        "must be None when device is cuda, whose workers it does not touch",
        "set device=cpu or drop num_threads",
    ),
)
