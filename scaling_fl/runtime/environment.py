"""What the environment says: ``.env`` beside the caller and the project, secrets of the cloud."""

import os
from pathlib import Path

from dotenv import dotenv_values

from scaling_fl.runtime.secret_manager import resolve_secrets

_SEEN_BY_LIBRARIES = (
    *("HF_HOME", "HF_TOKEN", "HF_ENDPOINT", "GOOGLE_APPLICATION_CREDENTIALS"),
    *("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    *("AWS_SESSION_TOKEN", "AWS_PROFILE"),
)
"""Variables that other programs leave empty, and that are then taken at their word."""


def load_environment(root: Path) -> None:
    """Add what ``.env`` says in the current folder and in ``root``, and fetch secrets named there.

    A variable of the environment comes first. An empty one says nothing, here as there.

    Raises:
        SecretUnavailable: a variable refers to a secret that cannot be read.
    """
    for folder in (Path.cwd(), root):
        for name, value in dotenv_values(folder / ".env").items():
            if value and not os.environ.get(name):
                os.environ[name] = value
    for name in _SEEN_BY_LIBRARIES:
        if os.environ.get(name) == "":
            del os.environ[name]
    os.environ.update(resolve_secrets(os.environ))
