"""The problems of single settings, worded as path, rule, value and remedy."""

import difflib
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from scaling_fl.config.base import choices, leaves, sections_in
from scaling_fl.config.conditions import listed, value_at
from scaling_fl.config.older import todays_name
from scaling_fl.config.schema import Config
from scaling_fl.config.sections import TierSettings
from scaling_fl.config.types import redact


class Problem(NamedTuple):
    """One thing to correct: dotted path, rule, the value given and the remedy."""

    path: str
    rule: str
    got: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path} {self.rule}, got {self.got}; {self.remedy}."


class Rule(NamedTuple):
    """What must hold for the setting at ``path``, given the settings at ``others``."""

    path: str
    others: tuple[str, ...]
    holds: Callable[[Config], bool]
    text: str
    remedy: str

    def problem(self, config: Config) -> Problem:
        """Say what is given in place of what the rule wants."""
        got = _shown(value_at(config, self.path))
        if self.others:
            others = [f"{path}={value_at(config, path)}" for path in self.others]
            got += f" with {listed(others, 'and')}"
        return Problem(self.path, self.text, got, self.remedy)


def field_at(path: str) -> FieldInfo | None:
    """Return the field at a dotted path, None when there is none."""
    section: type[BaseModel] = Config
    field = None
    for key in path.split("."):
        field = section.model_fields.get(key)
        if field is None:
            return None
        for inner, _ in sections_in(field):
            section = inner
    return field


_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "True or False",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a section (settings of its own)",
    "literal_error": "one of {expected}",
}
_RANGES = {
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:.15g}",
    "too_short": "non-empty",
    "string_too_short": "non-empty",
}


def _rule(error: Mapping[str, Any], field: FieldInfo) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind in _RANGES:
        return "must be " + _RANGES[kind].format(**context)
    if "expected" in context:
        context = {"expected": ", ".join(choices(field))}
    what = _TYPES.get(kind, error["msg"]).format(**context)
    in_list = isinstance(error["loc"][-1], int)
    nullable = type(None) in get_args(field.annotation) and not in_list
    return f"must be {what}{' or None' if nullable else ''}"


def _shown(value: Any) -> str:
    text = redact(repr(value))
    return text if len(text) <= 80 else text[:77] + "..."


@cache
def known_settings() -> dict[str, list[str]]:
    """Map what may be typed for a setting, its path or the last part of that, to the paths."""
    paths = [path for path, _ in leaves(Config().model_dump())]
    paths += [f"tiers[].{path}" for path, _ in leaves(TierSettings().model_dump())]
    by_name: dict[str, list[str]] = {}
    for path in paths:
        by_name.setdefault(path.split(".")[-1], []).append(path)
    return by_name | {path: [path] for path in paths}


def _unknown(path: str, value: Any) -> Problem:
    known = known_settings()
    if isinstance(value, Mapping) and len(value) == 1:  # a section with a single setting
        ((name, inside),) = value.items()
        return _unknown(f"{path}.{name}", inside)
    if isinstance(value, Mapping):
        sections = {path.rpartition(".")[0] for paths in known.values() for path in paths}
        known = {name: [name] for name in sections if name}
    near = [
        *difflib.get_close_matches(path, known, n=1),
        *difflib.get_close_matches(path.split(".")[-1], known, n=1),
    ]
    secret = any(word in path.lower() for word in ("password", "secret", "token", "key"))
    remedy = f"use {' or '.join(known[near[0]])}" if near else "see print_config for every setting"
    if today := todays_name(path, value):
        remedy = f"use {today}"
    return Problem(path, "must be a known setting", "***" if secret else _shown(value), remedy)


def _remedy(path: str, value: Any, rule: str, field: FieldInfo) -> str:
    near = difflib.get_close_matches(str(value), choices(field), n=1)
    if near:
        return f"use {path}={near[0]}"
    if isinstance(value, str) and (meant := _meant(value, rule)):
        return f"write {path}: {meant} in a file, {path}={meant} on the command line"
    if rule.endswith("credentials"):
        return "keep them in the environment or in .env"
    if "]." in path:  # a setting of a tier, whose default is that of all clients
        return "give such a value or leave it out"
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    if isinstance(default, BaseModel):
        for name, inner in type(default).model_fields.items():
            if value in choices(inner):
                return f"use {path}.{name}={value}"
        return f"give its settings, such as {path}.{next(iter(type(default).model_fields))}"
    return f"give such a value or leave {path.partition('[')[0]} at {_shown(default)}"


_MEANT = {"true": "True", "yes": "True", "on": "True", "false": "False", "no": "False"}
_MEANT |= {"off": "False", "none": "None", "null": "None", "nil": "None", "~": "None"}


def _meant(text: str, rule: str) -> str | None:
    """Return what a text was probably meant as: a number that YAML takes for text, a word."""
    meant = _MEANT.get(text.strip().lower())
    if meant and (("True" in rule) if meant in ("True", "False") else ("None" in rule)):
        return meant
    number = re.fullmatch(r"([+-]?[0-9]+)(\.[0-9]*)?(?:e([+-]?)([0-9]+))?", text.strip().lower())
    if not number or "number" not in rule:
        return None
    whole, fraction, sign, exponent = number.groups()
    if exponent is None:
        return text.strip()
    return f"{whole}{fraction or '.0'}e{sign or '+'}{exponent}"


def _single_problem(error: Mapping[str, Any]) -> Problem:
    names = [str(part) for part in error["loc"] if not isinstance(part, int)]
    path = ".".join(names)
    field = field_at(path)
    shown = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error["loc"])[1:]
    if field is None:
        return _unknown(shown, error["input"])
    rule, value = _rule(error, field), error["input"]
    value = list(value) if isinstance(value, tuple) else value
    return Problem(shown, rule, _shown(value), _remedy(shown, value, rule, field))


def single_problems(error: ValidationError) -> tuple[list[Problem], set[str]]:
    """Return the problems of single settings, and the dotted paths that are bad."""
    details: list[dict[str, Any]] = [dict(detail) for detail in error.errors(include_url=False)]
    # A list that is refused for an item is then short of it, which is not worth a line.
    refused = {tuple(detail["loc"][:-1]) for detail in details}
    found = [
        _single_problem(detail)
        for detail in details
        if not (detail["type"] == "too_short" and tuple(detail["loc"]) in refused)
    ]
    return found, {problem.path.partition("[")[0] for problem in found}
