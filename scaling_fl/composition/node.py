"""Configuration -> a node of a federation whose clients are on other machines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scaling_fl.composition.budget import make_budget
from scaling_fl.composition.clients import make_clients
from scaling_fl.composition.data import Data, deal, hash_of_owners, owners_of_test
from scaling_fl.composition.federation import choose_device, make_evaluator
from scaling_fl.composition.merge import personal_of_merge
from scaling_fl.composition.model import load_trainer
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import Config, read_config
from scaling_fl.config.merges import row_of
from scaling_fl.core.errors import UserError
from scaling_fl.core.letters import Letter
from scaling_fl.core.places import MEMORY, Place
from scaling_fl.core.seeding import from_seed
from scaling_fl.federation.node_end import NodeEnd
from scaling_fl.federation.remote import VERSION
from scaling_fl.federation.remote_evaluation import EVALUATE, NodeEvaluation
from scaling_fl.learning.models.adapters import frozen_digest
from scaling_fl.learning.task import Indices
from scaling_fl.methods.pairs import pairs_of
from scaling_fl.runtime.record.turns import TurnFiles


class JobOnNode:
    """One job's part that runs on a node: its model and data stay in memory from turn to turn."""

    def __init__(self, facts: Mapping[str, Any], owned: Place | None) -> None:
        """Load the model and the data of a job; ``owned`` is a node with data of its own.

        Raises:
            UserError: the settings or the data of the node cannot be used.
        """
        if facts["version"] != VERSION:
            raise UserError(
                f"the server must send letters of version {VERSION}, got {facts['version']}; "
                "install the same scaling_fl on the server and its nodes."
            )
        self._job, self._job_name = str(facts["job"]), str(facts["job_name"])
        config = _config(facts["settings"], int(facts["num_clients"]), owned)
        device = choose_device(config.device, 0)
        torch.set_num_threads(facts["num_threads"])
        self._data = _data(config, int(facts["num_clients"]), owned)
        trainer = load_trainer(config, self._data, device, note=print, stage=print)
        self._frozen, self._size = frozen_digest(trainer.model), trainer.layout.size
        budget = make_budget(config, int(facts["num_clients"]), print, with_secret=False)
        # Noise is the server's; a node with groups bounds the update of each.
        privacy = budget.privacy(from_seed(0), trainer.layout.size) if budget else None
        clients = make_clients(config, trainer, self._data, privacy)
        # With groups, each of their updates is bounded already.
        bound = privacy.bound if privacy and not privacy.by_group else None
        first = trainer.vector.clone()
        self._end = NodeEnd(clients, device, pairs_of(trainer.layout), bound, first)
        self._evaluation: NodeEvaluation | None = None
        if self._data.test_owners is not None:
            personal = personal_of_merge(config, trainer.layout)
            evaluator = make_evaluator(config, trainer, self._data)
            self._evaluation = NodeEvaluation(evaluator, first, personal)

    def answer(self, letter: Letter, folder: Path) -> Letter:
        """Have a client trained or its test examples answered, or describe the node.

        ``folder`` is the node's, where its clients remember.

        Raises:
            Forgotten: the client remembers no turn of that round.
        """
        if letter.facts["what"] == "describe":
            return self._describe()
        if letter.facts["what"] == EVALUATE and self._evaluation:
            return self._evaluation.answer(letter, self._memories(folder))
        return self._end.answer(letter, self._memories(folder))

    def answer_apart(self, letter: Letter, folder: Path) -> tuple[Letter, Indices | None]:
        """Have a client trained, and return its update apart, as an exact sum holds it."""
        return self._end.answer_apart(letter, self._memories(folder))

    def _memories(self, folder: Path) -> TurnFiles:
        return TurnFiles(folder / MEMORY / self._job, self._job_name)

    def _describe(self) -> Letter:
        sizes = [len(examples) for examples in self._data.partitions]
        facts = {
            "num_examples": sizes,
            "train": self._data.train.key,
            "test": self._data.test.key,
            "num_tests": len(self._data.test),
            "owners": hash_of_owners(self._data.partitions),
            "frozen": self._frozen,
            "size": self._size,
            "meaning": self._data.task.meaning,
        }
        return Letter(facts)


def _config(settings: Mapping[str, Any], num_clients: int, owned: Place | None) -> Config:
    """Read the server's settings; a node with data of its own trains on that, and has no other."""
    if owned is None:
        return read_config(settings)
    # The server's test data stay there.
    own = {"train_path": owned.train_path, "test_path": owned.test_path}
    return read_config({**settings, **own, "num_clients": num_clients}, has_data=False)


def _data(config: Config, num_clients: int, owned: Place | None) -> Data:
    task = make_task(config)
    # A node reads test examples only where it answers them.
    train, test, owners = task.load_examples("train"), None, None
    if owned is None:
        partitions = deal(config, task, train, num_clients)
        if row_of(config.merge.method).personal:
            test = task.load_examples("test")
            owners = owners_of_test(config, task, test, train, partitions)
    else:
        nothing, everything = np.arange(0), np.arange(len(train))
        partitions = [
            everything if client == owned.partition else nothing for client in range(num_clients)
        ]
        if owned.test_path is not None:
            test = task.load_examples("test")
            owners = np.full(len(test), owned.partition)
    return Data(
        task=task, train=train, test=test or train, partitions=partitions, test_owners=owners
    )
