"""Mappings of settings for the tests of the configuration, and the problems of a mapping."""

from typing import Any

from scaling_fl.config import ConfigurationError, defaults, read_config
from scaling_fl.config.base import leaves

PATHS = [path for path, _ in leaves(defaults())]
SECTIONS = [name for name, value in defaults().items() if isinstance(value, dict)]
PACKAGED = {"task_name": "20newsgroups_topics"}
LORA = {"adapter": {"kind": "lora", "rank": 8}}
PRIVATE = {"weighting": "uniform", "num_clients": 4}
GROUPS = {"clip": 1.0, "unit": "group", "groups_per_client": 4}


def nested(path: str, value: Any) -> dict[str, Any]:
    section, _, name = path.rpartition(".")
    return {section: {name: value}} if section else {name: value}


def merged(*mappings: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for mapping in mappings:
        for key, value in mapping.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def problems(mapping: dict[str, Any], **options: Any) -> list[str]:
    try:
        read_config(mapping, **options)
    except ConfigurationError as error:
        return [str(problem) for problem in error.problems]
    return []


def only_problem(mapping: dict[str, Any], **options: Any) -> str:
    (problem,) = problems({**PACKAGED, **mapping}, **options)
    return problem


def with_tiers(*tiers: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {**LORA, "num_clients": 4, **settings, "tiers": list(tiers)}
