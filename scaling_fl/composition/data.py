"""Configuration -> data: the examples of the task, and the partition of each client."""

from collections.abc import Callable
from dataclasses import dataclass

from scaling_fl.composition.own import find_callable
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import Config
from scaling_fl.config.own import is_own
from scaling_fl.core.errors import UserError
from scaling_fl.learning.task import Examples, Indices, Task
from scaling_fl.methods.partitioning import Partitioner, partition


@dataclass(frozen=True, kw_only=True)
class Data:
    """A task, its training and test examples, and the owners of the training examples."""

    task: Task
    train: Examples
    test: Examples
    partitions: list[Indices]
    """For every client, the indices of its training examples."""


def load_data(config: Config, num_clients: int, stage: Callable[[str], None]) -> Data:
    """Read the task's examples, prepare them once per machine, and deal them to the clients."""
    task = make_task(config)
    stage(f"reading {config.task_name}")
    train, test = task.load_examples("train"), task.load_examples("test")
    try:
        partitions = partition(
            train.strata,
            kind=_kind(config),
            num_clients=num_clients,
            seed=config.data_seed,
            alpha=config.partition.alpha,
            min_examples=config.partition.min_examples,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    return Data(task=task, train=train, test=test, partitions=partitions)


def _kind(config: Config) -> str | Partitioner:
    kind = config.partition_kind
    return find_callable(kind, "partition.kind") if is_own(kind) else kind
