"""The configuration: one mapping in, a checked ``Config`` or every problem at once out."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from scaling_fl.config.client_rules import cohort_problems
from scaling_fl.config.data_rules import ColumnsOf
from scaling_fl.config.model_rules import weights_problem
from scaling_fl.config.older import in_todays_names
from scaling_fl.config.privacy_rules import NOISE_SECRET, secret_problems
from scaling_fl.config.problems import Problem, single_problems
from scaling_fl.config.rules import cross_problems
from scaling_fl.config.schema import Config
from scaling_fl.config.text import describe
from scaling_fl.config.types import redact
from scaling_fl.core.errors import InputError

__all__ = [
    "NAMED",
    "NOISE_SECRET",
    "Config",
    "ConfigurationError",
    "Problem",
    "cohort_problems",
    "defaults",
    "describe",
    "read_config",
    "read_single_settings",
    "redact",
    "secret_problems",
]

NAMED: dict[str, dict[str, Any]] = {
    "demo": {
        "site_ids": [0, 0, 1, 1],
        "model": "minilm",
        "task_name": "20newsgroups_topics",
        "max_seq_len": 48,
        "adapter": {
            "kind": "lora",
            # The lower half of the six layers needs no backward pass.
            "targets": [
                f"layer.{layer}.attention.self.{part}"
                for layer in (3, 4, 5)
                for part in ("query", "value")
            ],
            "modules_to_save": ["pooler"],
        },
        "optimiser": "adamw",
        "learning_rate": 2e-3,
        "batch_size": 16,
        "length_grouped": True,
        "num_rounds": 4,
        "num_local_steps": 16,
        "val_batch_size": 100,
        "data": {"max_train_examples": 2400, "max_test_examples": 800},
    },
}
"""The configurations that can be named on the command line, as ``with demo``."""


class ConfigurationError(InputError):
    """A configuration that cannot be run, with one line for every problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(problems)} problem{'s'[: len(problems) > 1]}"
        super().__init__("\n".join([f"{count} in the configuration:", *map(str, problems)]))


def read_config(
    mapping: Mapping[str, Any],
    *,
    num_nodes: int = 1,
    environ: Mapping[str, str] | None = None,
    has_data: bool = True,
    columns_of: ColumnsOf | None = None,
    needs_weights: bool = True,
) -> Config:
    """Check a mapping of settings and return it as a Config.

    On several nodes the number of clients may follow from sites that this node does not know; the
    rules about it are then left to ``cohort_problems``. So are they when the clients are those of
    a column. A run that is to start gives its ``environ``, which must have the secrets that the run
    needs, and with ``columns_of`` what reads the columns of a table, to check those that are named.
    With ``has_data=False`` the data may not have been named yet; with ``needs_weights=False`` the
    model may be a config.json alone.

    Raises:
        UserError: the table cannot be read.
        ConfigurationError: with every problem found: types, ranges, unknown keys, rules between
            settings and settings without effect.
    """
    given = _plain(mapping)
    try:
        config = Config.model_validate(given)
        problems, bad = list[Problem](), set[str]()
    except ValidationError as error:
        problems, bad = single_problems(error)
        # The rules between the settings that are sound are still worth telling.
        config = Config.model_validate(_without(given, error))
    problems += cross_problems(
        config, bad, num_nodes=num_nodes, has_data=has_data, columns_of=columns_of
    )
    if needs_weights and "model" not in bad and (problem := weights_problem(config.model)):
        problems.append(problem)
    if environ is not None and "privacy" not in {path.partition(".")[0] for path in bad}:
        problems += secret_problems(config, environ)
    if problems:
        raise ConfigurationError(problems)
    return config


def read_single_settings(mapping: Mapping[str, Any]) -> Config:
    """Check every setting by itself, as befits a part of the settings of a run that was accepted.

    The settings may have the names of an earlier version.

    Raises:
        ConfigurationError: with every problem of type, range or name.
    """
    try:
        return Config.model_validate(in_todays_names(_plain(mapping)))
    except ValidationError as error:
        raise ConfigurationError(single_problems(error)[0]) from None


def defaults() -> dict[str, Any]:
    """Return the default of every setting as plain nested dicts and lists."""
    return Config().model_dump(mode="json")


def _plain(value: Any) -> Any:
    """Copy Sacred's read-only containers into plain ones."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _without(given: dict[str, Any], error: ValidationError) -> dict[str, Any]:
    """Copy the settings, less those that an error is about (they then have their defaults)."""
    kept = _plain(given)
    for detail in error.errors(include_url=False):
        section: Any = kept
        names = [part for part in detail["loc"] if not isinstance(part, int)]
        for name in names[:-1]:
            if isinstance(section.get(name, {}), list):  # a list is left out as a whole
                names = [name]
                break
            section = section.get(name, {})
        section.pop(names[-1], None)
    return dict(kept)
