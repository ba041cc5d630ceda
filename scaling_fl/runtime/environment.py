"""What the environment says: ``.env`` beside the caller and the project, secrets of the cloud."""

import os
from pathlib import Path

from dotenv import load_dotenv

from scaling_fl.runtime.secret_manager import resolve_secrets


def load_environment(root: Path) -> None:
    """Add what ``.env`` says in the current folder and in ``root``, and fetch secrets named there.

    Raises:
        SecretUnavailable: a variable refers to a secret that cannot be read.
    """
    for folder in (Path.cwd(), root):
        load_dotenv(folder / ".env")
    os.environ.update(resolve_secrets(os.environ))
