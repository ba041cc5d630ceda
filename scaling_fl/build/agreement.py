"""What all workers must agree on before they train together."""

import hashlib

from torch import nn

from scaling_fl.build.data import Data
from scaling_fl.core.errors import UserError
from scaling_fl.core.exchange import Exchange
from scaling_fl.learning.models.adapters import frozen_digest


def check_same_data(data: Data, exchange: Exchange) -> None:
    """Refuse to train when workers do not agree on the data and on who owns what.

    Machines may hold different copies of a file, and draws of floating-point shares may differ
    between kinds of processor.

    Raises:
        UserError: the workers' data differ.
    """
    parts = hashlib.sha256(b"|".join(part.tobytes() for part in data.parts)).hexdigest()
    mine = {"train": data.train.key, "test": data.test.key, "parts": parts}
    found = {(row["train"], row["test"], row["parts"]) for row in exchange.gather([mine])}
    if len(found) > 1:
        raise UserError(
            "all machines must have the same data, tokenizer and versions of the libraries, got "
            f"{len(found)} different ones; compare train_path, test_path and model on each of them."
        )


def check_same_model(model: nn.Module, exchange: Exchange) -> str:
    """Return the hash of the frozen weights, which no vector carries from worker to worker.

    Raises:
        UserError: the workers' models differ.
    """
    digest = frozen_digest(model)
    if len({row["frozen"] for row in exchange.gather([{"frozen": digest}])}) > 1:
        raise UserError(
            "all machines must have the same weights of model, got different ones; compare the "
            "model's folder or revision on each of them."
        )
    return digest
