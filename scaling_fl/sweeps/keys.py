"""The key of a run of a sweep: equal keys are the same computation with the same record.

A run is found again by its key, so that one that is finished is not run twice and one that was
interrupted goes on. Where a run is computed, and where its files are, is no part of it.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from scaling_fl.config import Config
from scaling_fl.config.base import leaves
from scaling_fl.config.own import file_of
from scaling_fl.core.digest import digest

PACKAGE = Path(__file__).parents[1]
COMPUTING = ("core", "config", "methods", "learning", "federation", "composition")
"""The wings of the package that decide what a run computes."""
PLACES = ("train_path", "test_path", "init_from")
"""Settings that name a place, whose content counts."""
_RECORDED = (
    *("num_rounds", "eval_every", "per_class_metrics", "metrics", "min_clients"),
    *("download.evaluate", "privacy.delta", "privacy.accountant", "privacy.max_epsilon"),
)
"""What the identity of a computation leaves out, and what is recorded depends on."""

ContentDigest = Callable[[str], str]
"""Hashes what is at a place: a file, a folder or an address."""


def run_key(config: Config, content: ContentDigest) -> str:
    """Return the key of a run (64 hexadecimal digits), by its settings, data and code.

    Raises:
        UserError: a file that the settings name cannot be read.
    """
    return digest(
        {
            "settings": _settings(config),
            "content": _contents(config, content),
            "code": code_version(),
        }
    )


def job_name_of(sweep: str, key: str) -> str:
    """Return the name of the job of a run, by which its checkpoints are found again."""
    return f"{sweep}-{key[:12]}"


def _settings(config: Config) -> dict[str, Any]:
    everything = dict(leaves(config.model_dump(mode="json")))
    recorded = {path: everything[path] for path in _RECORDED}
    stops = {path: value for path, value in everything.items() if path.startswith("stop_when.")}
    identity = {path: value for path, value in config.identity().items() if path not in PLACES}
    # Without a number there is one client per site, however many devices those are.
    num_clients = config.num_clients or (None if config.partition.column else len(config.site_ids))
    return identity | recorded | stops | {"num_clients": num_clients}


def _contents(config: Config, content: ContentDigest) -> dict[str, str]:
    places = {path: getattr(config, path) for path in PLACES}
    if Path(config.model).exists():
        places["model"] = config.model
    own = {name: file_of(name) for _, name in config.own_names()}
    return {name: content(place) for name, place in (places | own).items() if place}


@cache
def code_version() -> str:
    """Hash the source of all that decides what a run computes."""
    total = hashlib.sha256()
    for file in sorted(file for wing in COMPUTING for file in (PACKAGE / wing).rglob("*.py")):
        text = file.read_bytes()
        name = file.relative_to(PACKAGE).as_posix().encode()
        total.update(b"%d %b %d " % (len(name), name, len(text)))
        total.update(text)
    return total.hexdigest()
