"""Fingerprints: what makes a run the run that it is, as plain dicts of names and values.

Importing this module needs no torch. ``core.digest.digest`` hashes a fingerprint.
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scaling_fl.config import Config
from scaling_fl.config.base import leaves
from scaling_fl.config.merges import row_of

if TYPE_CHECKING:
    from torch import Tensor

FROZEN = "frozen weights"
START = "init_from"
OWNERS = "owners"
SEAL = "privacy.secret"
"""The keyed hashes of a job with noise, see ``secrecy``; jobs of earlier versions have none."""
MEANING = ("labels", "template", FROZEN, "load.bits", "adapter.alpha", "adapter.rslora")
"""What two vectors of one layout must share to mean the same, their model aside."""

_PATHS = ("train_path", "test_path")  # where the data is, which counts by its content
_SHOWN_CHARACTERS = 12
_SAME_ROUNDS = ("num_rounds", "num_clients", "min_clients", "eval_every", "per_class_metrics")


def of_vector(
    config: Config, task_meaning: Mapping[str, Any], frozen_digest: str
) -> dict[str, Any]:
    """Collect what gives the vector its meaning, beyond the names and shapes of its layout.

    ``frozen_digest`` is the hash of the weights that no vector holds; without an adapter there are
    none.
    """
    found: dict[str, Any] = {
        "model": config.model,
        "task_name": config.task_name,
        **task_meaning,
    }
    if config.adapter.kind != "none":
        found[FROZEN] = frozen_digest
        found["adapter.alpha"] = config.adapter.alpha
        found["adapter.rslora"] = config.adapter.rslora
    if config.load.bits < 32:
        found["load.bits"] = config.load.bits
    return found


def of_computation(config: Config, num_clients: int, *data_keys: str) -> dict[str, Any]:
    """Collect all that decides what is computed.

    ``data_keys`` are hashes of the tokenised data: of the training and of the test data. A job with
    noise gives that of the test data alone, because what is collected here is published.
    """
    found = {name: value for name, value in config.identity().items() if name not in _PATHS}
    data = [key[:_SHOWN_CHARACTERS] for key in data_keys]
    return found | {"num_clients": num_clients, "data": data}


def of_guarantee(
    config: Config, num_clients: int, *, train_key: str, privacy_terms: Mapping[str, Any]
) -> dict[str, Any]:
    """Collect what must stay for a job to go on, because what it keeps would mean something else.

    Epsilon and what clients remember are of the owners of the data, as they were dealt; and the
    mean of SCAFFOLD's control variates that the server remembers is of those that can take part, by
    their weights.
    ``privacy_terms`` are those of the budget; empty without privacy.
    """
    found = dict(privacy_terms)
    remember = config.upload.error_feedback or row_of(config.merge.method).personal
    if found or remember or config.scaffold:
        split = {k: v for k, v in config.identity().items() if k.startswith("partition.")}
        found[OWNERS] = {
            "num_clients": num_clients,
            "data_seed": config.data_seed,
            "data": [train_key[:_SHOWN_CHARACTERS]],
            **split,
        }
    if config.scaffold:
        found["scaffold"] = {"weighting": config.weighting}
        if config.listed_cohorts:
            found["scaffold"]["clients"] = config.participants(num_clients)
    if config.server_freeze:
        found["server_freeze"] = True
    return found


def of_machines(config: Config, num_machines: int) -> dict[str, Any]:
    """Collect what must be the same on all machines, or they would wait for each other in vain."""
    settings = {name: value for name, value in config.identity().items() if name not in _PATHS}
    rounds = {name: getattr(config, name) for name in _SAME_ROUNDS}
    stops = dict(leaves(config.stop_when.model_dump(mode="json"), "stop_when."))
    return settings | rounds | stops | {"WORLD_SIZE": num_machines}


def of_values(vector: "Tensor") -> str:
    """Hash the bytes of a vector."""
    return hashlib.sha256(vector.detach().cpu().contiguous().numpy().data).hexdigest()
