"""Where a node is, by the configuration that Flower hands to it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling_fl.core.places import Place


def place_of(node_config: Mapping[str, Any]) -> Place:
    """Read ``partition-id``, ``folder`` and ``train-path``; a simulated node has only the first."""
    partition = int(node_config.get("partition-id", 0))
    train_path = node_config.get("train-path")
    folder = node_config.get("folder")
    if folder is None:
        home = os.environ.get("FLWR_HOME") or "~/.flwr"
        folder = Path(home).expanduser() / "scaling_fl" / f"node-{partition}"
    return Place(partition, Path(str(folder)), None if train_path is None else str(train_path))
