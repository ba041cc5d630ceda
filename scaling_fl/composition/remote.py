"""Composition of the server of a federation whose clients are on other machines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from scaling_fl.composition.data import Data, hash_of_owners
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import Config
from scaling_fl.config.merges import MERGES, row_of
from scaling_fl.core.errors import InputError, UserError
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.letters import Letter
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import Clients
from scaling_fl.federation.remote import NODE_TURN, VERSION, Post, RemoteClients
from scaling_fl.federation.remote_evaluation import NodesEvaluation
from scaling_fl.federation.sealed import SealedSum
from scaling_fl.learning.models.adapters import frozen_digest
from scaling_fl.learning.task import Batch, Indices, MeasuresMore, Split
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.runtime.record.journal import JournalTail, fold
from scaling_fl.runtime.tracking.places import JobPlaces


class Office(Post, Protocol):
    """A post that knows its nodes."""

    owns_data: bool
    """Whether every node has data of its own, and so is one client."""
    owns_tests: bool
    """Whether every node has test data of its own, too."""
    is_secure: bool
    """Whether the sum of the updates alone arrives."""

    @property
    def num_nodes(self) -> int:
        """The number of nodes, which are there before the first round."""

    def describe(self, letter: Letter) -> list[Letter | str]:
        """Send every node a letter, and return the answers in the order of the nodes.

        An answer is a letter or, where there is none, why.
        """


class KnownNodes:
    """The nodes of a job, as its server knows them."""

    def __init__(
        self, config: Config, office: Office, job: Mapping[str, str], num_clients: int
    ) -> None:
        """Ask all nodes what they have; ``job`` tells them which job it is (see ``job_of``).

        Raises:
            InputError: a setting cannot be had with clients on other machines.
            UserError: a node cannot take part; the text names it.
        """
        _check_personal(config)
        if office.owns_data:
            _check_owned(config, office)
        if office.is_secure:
            check_sealed(config)
        self._config, self._office = config, office
        self.of_job = {
            "version": VERSION,
            **job,
            "settings": config.model_dump(mode="json"),
            "num_clients": num_clients,
            "num_threads": torch.get_num_threads(),
        }
        letter = Letter({**self.of_job, "what": "describe"})
        answers = office.describe(letter)
        self._found = [_described(number, answer) for number, answer in enumerate(answers)]

    def trust(self) -> str:
        """Say how many nodes do not believe the server whose keys are whose."""
        checking = sum(bool(found.get("checks_keys")) for found in self._found)
        return f"{checking} of {len(self._found)} nodes check whose keys the server gives to them"

    def data(self) -> Data:
        """Make the server's view of data that only the nodes have."""
        task = make_task(self._config)
        sizes = [found["num_examples"][n] for n, found in enumerate(self._found)]
        test, owners = self._tests() if self._office.owns_tests else (None, None)
        return Data(
            task=task,
            train=self._elsewhere("train", sum(sizes)),
            test=test or task.load_examples("test"),
            partitions=[np.arange(size) for size in sizes],
            test_owners=owners,
            beside=task.load_measurements() if isinstance(task, MeasuresMore) else [],
            is_elsewhere=True,
            tests_are_elsewhere=owners is not None,
        )

    def _tests(self) -> tuple["ElsewhereExamples", Indices]:
        sizes = [int(found["num_tests"]) for found in self._found]
        owners = np.repeat(np.arange(len(sizes)), sizes)
        return self._elsewhere("test", len(owners)), owners

    def _elsewhere(self, split: Split, number: int) -> "ElsewhereExamples":
        return ElsewhereExamples(" ".join(str(found[split]) for found in self._found), number)

    def check(self, data: Data, trainer: LocalTrainer) -> None:
        """Refuse a node that would train something else.

        Raises:
            UserError: naming the first such node, and what differs.
        """
        expected = {
            "model weights": ("frozen", frozen_digest(trainer.model)),
            "number of parameters": ("size", trainer.layout.size),
            "labels": ("meaning", data.task.meaning),
        }
        if not self._office.owns_data:
            expected["training data"] = ("train", data.train.key)
            expected["split"] = ("owners", hash_of_owners(data.partitions))
            if data.test_owners is not None:
                expected["test data"] = ("test", data.test.key)
        for number, found in enumerate(self._found):
            for what, (name, value) in expected.items():
                if found.get(name) != value:
                    raise UserError(
                        f"all nodes must have the {what} of the server, and node {number} has "
                        f"other ones; compare the settings, files and versions there."
                    )

    def clients(self, local: Clients, config: Config) -> RemoteClients:
        """Make the clients of these nodes from those that a worker would run itself."""
        found = RemoteClients(
            local.trainer,
            local.examples,
            local.partitions,
            tiers=local.tiers,
            tier_of=local.tier_of,
            seed=config.seed,
            groups=local.groups,
            statistics=local.statistics,
        )
        found.post, found.of_job = self._office, self.of_job
        found.oldest = lambda number: _oldest(config, number)
        found.sealed = SealedSum() if self._office.is_secure else None
        return found

    def evaluation(self, data: Data, personal: Tensor | None) -> NodesEvaluation:
        """Make what has the nodes answer the test examples of their clients."""
        return NodesEvaluation(
            post=self._office,
            of_job=self.of_job,
            num_counts=data.task.num_counts,
            personal=personal,
        )


class ElsewhereExamples:
    """Examples that are on other machines: only their number is known here."""

    def __init__(self, key: str, number: int) -> None:
        self.key, self._number = key, number

    @property
    def lengths(self) -> Indices:
        return np.zeros(self._number, dtype=np.int64)

    @property
    def strata(self) -> Indices:
        return np.zeros(self._number, dtype=np.int64)

    def __len__(self) -> int:
        return self._number

    def batch(self, indices: Indices) -> Batch:
        raise AssertionError("the examples are on other machines")


def _check_personal(config: Config) -> None:
    if row_of(config.merge.method).personal and config.init_from:
        raise InputError(
            f"init_from must be left alone with merge.method={config.merge.method} and clients on "
            f"other machines, which begin with the base model, got {config.init_from}; drop it."
        )


def _check_owned(config: Config, office: Office) -> None:
    """Refuse what cannot be evaluated where nodes have data of their own."""
    row, method = row_of(config.merge.method), config.merge.method
    if row.personal and not office.owns_tests:
        raise InputError(
            f"merge.method={method} needs test data on nodes that have data of their own, because "
            "each client answers by its own part of the model; give each node a test-path."
        )
    if config.privacy.group_column is not None:
        raise InputError(
            "privacy.group_column must be left alone where nodes have data of their own, because "
            f"the server draws the groups and knows of none, got {config.privacy.group_column}; "
            "deal groups at random by dropping it."
        )
    if row.moves_base is not None and office.owns_tests:
        raise InputError(
            f"merge.method={method} needs the test data on the server, because the base of the "
            "model moves there; leave the test-path of the nodes out, or choose another merge."
        )


def check_sealed(config: Config) -> None:
    """Refuse what needs more than the sum of the updates.

    Raises:
        InputError: naming all settings that do.
    """
    summing = tuple(name for name, row in MERGES.items() if row.private)
    given = {
        "merge.method": (config.merge.method, summing),
        "upload.codec": (config.upload.codec, ("none",)),
        "upload.density": (config.upload.density, (1.0,)),
        "upload.values": (config.upload.values, ("update",)),
        "upload.error_feedback": (config.upload.error_feedback, (False,)),
        "scaffold": (config.scaffold, (False,)),
        "privacy.target_quantile": (config.privacy.target_quantile, (None,)),
        "number of different site_ids": (len(set(config.site_ids)), (1,)),
    }
    found = [
        f"{path} must be {' or '.join(map(str, allowed))}, got {value}"
        for path, (value, allowed) in given.items()
        if value not in allowed
    ]
    if found:
        raise InputError(
            f"with secure-sum the server learns the sum of the updates alone: {'; '.join(found)}; "
            "change these, or leave secure-sum off."
        )


def check_memory(state: GlobalState, config: Config, *, is_remote: bool) -> None:
    """Refuse to go on with clients that remember elsewhere what they need.

    Raises:
        InputError: the clients of the rounds before remember on their nodes, or on the server.
    """
    is_personal = bool(row_of(config.merge.method).personal)
    remembers = config.upload.error_feedback or config.scaffold or is_personal
    elsewhere = any(
        (NODE_TURN in tensors) != is_remote for tensors in state.memory.clients.values() if tensors
    )
    if remembers and elsewhere:
        here, there = ("this command", "`flwr run`")[:: -1 if is_remote else 1]
        raise InputError(
            "upload.error_feedback, scaffold and merge.method=share_a need what the clients "
            f"remember of the rounds before, which {there} has kept, not {here}; go on with "
            f"{there}, or start anew with another job_name."
        )


def _described(number: int, answer: Letter | str) -> Mapping[str, Any]:
    if isinstance(answer, str):
        raise UserError(f"node {number} cannot take part: {answer}.")
    if failure := answer.facts.get("failure"):
        raise UserError(f"node {number} cannot take part ({failure}); its log says why.")
    return answer.facts


def _oldest(config: Config, number: int) -> int:
    """Return the first round that a job can go back to while it is in round ``number``."""
    if config.keep_last is None:
        return 0
    saved = (number - 1) // config.save_every
    return max(0, saved - config.keep_last + 1) * config.save_every


def job_of(job: JobPlaces | None, exchange: Exchange) -> dict[str, str]:
    """Give every worker the uid and the name of the job, for its nodes: worker 0 reads them."""
    mine = []
    if exchange.rank == 0 and job:
        record = fold(JournalTail(Path(job["journal"])).read_new())
        mine = [{"job": record.uid, "job_name": record.job_name or ""}]
    (found,) = exchange.gather(mine)
    return {name: str(found[name]) for name in ("job", "job_name")}
