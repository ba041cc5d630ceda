"""Federated fine-tuning of language models, as commands (see scripts/) and as a library:

    from scaling_fl import run, read_runs

    result = run("demo", num_rounds=2)
    result.curves, result.checkpoint, result.load_model()

See ``scaling_fl.commands.library``. To import this package imports nothing else of it.
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "RunResult": "scaling_fl.commands.library",
    "RunResults": "scaling_fl.commands.library",
    "UserError": "scaling_fl.core.errors",
    "read_runs": "scaling_fl.commands.library",
    "run": "scaling_fl.commands.library",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    """Import what is public when it is first used."""
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
