"""Files in torch's own format, such as published weights are, for what reads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def write_tensors(content: Mapping[str, Any], path: Path) -> None:
    torch.save(dict(content), path)
