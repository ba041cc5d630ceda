"""Where a node is, by the configuration that Flower hands to it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling_fl.core.places import Place


def place_of(node_config: Mapping[str, Any]) -> Place:
    """Read ``partition-id``, ``folder``, ``train-path``, ``test-path`` and ``secure-sum``.

    A simulated node has only the first.
    """
    partition = int(node_config.get("partition-id", 0))
    folder = node_config.get("folder")
    if folder is None:
        home = os.environ.get("FLWR_HOME") or "~/.flwr"
        folder = Path(home).expanduser() / "scaling_fl" / f"node-{partition}"
    paths = [node_config.get(name) for name in ("train-path", "test-path")]
    train, test = (None if path is None else str(path) for path in paths)
    only_sums = bool(node_config.get("secure-sum", False))
    return Place(partition, Path(str(folder)), train, test if train else None, only_sums)
