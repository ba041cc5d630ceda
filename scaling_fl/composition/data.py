"""Configuration -> data: the examples of the task, and the partition of each client."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from scaling_fl.composition.own import find_callable
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import Config
from scaling_fl.config.merges import row_of
from scaling_fl.config.own import is_own
from scaling_fl.core.errors import UserError
from scaling_fl.learning.task import (
    Examples,
    Indices,
    Measurement,
    MeasuresMore,
    NaturalClients,
    Prepared,
    Task,
    of_test,
)
from scaling_fl.methods.partitioning import Partitioner, owners_alike, partition

_SHOWN_CLIENTS = 5


@dataclass(frozen=True, kw_only=True)
class Data:
    """A task, its training and test examples, and the owners of the training examples."""

    task: Task
    train: Examples
    test: Examples
    partitions: list[Indices]
    """For every client, the indices of its training examples."""
    client_names: list[str] | None = None
    """The clients' names, where they are those of a column."""
    test_owners: Indices | None = None
    """The client whose own model answers each test example, -1: none's; None: there are none."""
    beside: list[Measurement] = field(default_factory=list)
    """What a model is measured on besides the test examples."""
    is_elsewhere: bool = False
    """Whether only the clients' machines have the training examples, and their number is known."""
    tests_are_elsewhere: bool = False
    """Whether that holds for the test examples, too."""
    notes: list[str] = field(default_factory=list)
    """What is worth knowing of the data, in sentences; with noise, nobody else must know it."""

    @property
    def measured(self) -> list[Measurement]:
        """All that a model is measured on, the test examples first."""
        return [of_test(self.task, self.test), *self.beside]

    @property
    def caveats(self) -> list[str]:
        """What the metrics cannot tell, in sentences."""
        of_test = "" if self.tests_are_elsewhere else self.task.caveat(self.test)
        found = [of_test, *(each.note for each in self.beside)]
        return [text for text in found if text]


def count_clients(config: Config, num_sites: int) -> int:
    """Return the number of clients: those of the data, those that are asked for, one per site.

    Raises:
        UserError: the data cannot be read, or num_clients is another number than that of its own.
    """
    if config.partition_kind == "column":
        return len(_client_names(config, _natural(config, make_task(config))))
    return config.num_clients or num_sites


def _client_names(config: Config, natural: NaturalClients) -> list[str]:
    names = natural.client_names()
    if config.num_clients not in (None, len(names)):
        raise UserError(
            f"num_clients must be left alone with partition.kind=column, or be the {len(names)} "
            f"different values of column {config.partition.column}, got {config.num_clients}; "
            "drop num_clients."
        )
    return names


def load_data(config: Config, num_clients: int, stage: Callable[[str], None]) -> Data:
    """Read the task's examples, prepare them once per machine, and deal them to the clients.

    Raises:
        UserError: the data is not what the task needs, or a client has none of it.
    """
    task = make_task(config)
    stage(f"reading {config.task_name}")
    train, test = task.load_examples("train"), task.load_examples("test")
    client_names, notes = None, list[str]()
    if config.partition_kind == "column":
        natural = _natural(config, task)
        client_names = _client_names(config, natural)
        notes += _notes(config, natural.owners(test), len(test))
    partitions = deal(config, task, train, num_clients)
    owners = None
    if row_of(config.merge.method).personal:
        owners = owners_of_test(config, task, test, train, partitions)
    return Data(
        task=task,
        train=train,
        test=test,
        partitions=partitions,
        client_names=client_names,
        test_owners=owners,
        beside=task.load_measurements() if isinstance(task, MeasuresMore) else [],
        notes=notes,
    )


def deal(config: Config, task: Task, train: Examples, num_clients: int) -> list[Indices]:
    """Deal the training examples to the clients.

    Raises:
        UserError: a client has none of them.
    """
    owners = train.strata
    if config.partition_kind == "column":
        natural = _natural(config, task)
        found = natural.owners(train)
        assert found is not None
        owners = found
        _check_all_have_examples(config, owners, _client_names(config, natural))
    try:
        return partition(
            owners,
            kind=_kind(config),
            num_clients=num_clients,
            seed=config.data_seed,
            alpha=config.partition.alpha,
            min_examples=config.partition.min_examples,
            pooled=config.partition.pooled,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def hash_of_examples(examples: Examples) -> str:
    """Hash which examples these are, whichever model they were prepared for."""
    return (examples.source if isinstance(examples, Prepared) else "") or examples.key


def hash_of_owners(partitions: Sequence[Indices]) -> str:
    """Hash which client owns which examples."""
    return hashlib.sha256(b"|".join(indices.tobytes() for indices in partitions)).hexdigest()


def owners_of_test(
    config: Config, task: Task, test: Examples, train: Examples, partitions: Sequence[Indices]
) -> Indices:
    """Return the client whose own model answers each test example, -1: none's.

    It is the client in the column of clients or, by the label, one with such training examples.
    """
    if config.partition_kind == "column" and isinstance(task, NaturalClients):
        found = task.owners(test)
        if found is not None:
            return found
    return owners_alike(test.strata, train.strata, partitions, seed=config.data_seed)


def _kind(config: Config) -> str | Partitioner:
    kind = config.partition_kind
    return find_callable(kind, "partition.kind") if is_own(kind) else kind


def natural_clients_sentence(config: Config, data: Data) -> str:
    """Say who the clients are, and how many examples they have."""
    sizes = [len(examples) for examples in data.partitions]
    each = [f"{name} ({size})" for name, size in zip(data.client_names or (), sizes, strict=True)]
    return (
        f"{len(each)} client{'s' * (len(each) > 1)}, one for each {config.partition.column}: "
        f"{_shortened(each)}"
    )


def _shortened(words: Sequence[str]) -> str:
    more = f" and {len(words) - _SHOWN_CLIENTS} more" * (len(words) > _SHOWN_CLIENTS)
    return ", ".join(words[:_SHOWN_CLIENTS]) + more


def _notes(config: Config, owners: Indices | None, num_test: int) -> list[str]:
    num_foreign = 0 if owners is None else int((owners < 0).sum())
    if not num_foreign:
        return []
    column = config.partition.column
    return [
        f"{num_foreign} of {num_test} test examples are of a {column} that has no training examples"
    ]


def _natural(config: Config, task: Task) -> NaturalClients:
    if not isinstance(task, NaturalClients):
        raise UserError(
            f"partition.kind=column needs a task whose data says whose each example is, and "
            f"{config.task_name} is none; choose another partition.kind."
        )
    return task


def _check_all_have_examples(config: Config, owners: Indices, names: Sequence[str]) -> None:
    present = set(owners.tolist())
    lacking = [name for client, name in enumerate(names) if client not in present]
    if lacking:
        raise UserError(
            f"every client of column {config.partition.column} must have a training row, and "
            f"{_shortened(lacking)} ha{'ve' if len(lacking) > 1 else 's'} none left; raise "
            "data.max_train_examples, lower data.test_share or remove their rows."
        )
