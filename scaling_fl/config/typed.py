"""The settings that are typed after the word ``with``: values, named configurations and files."""

import ast
import difflib
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaling_fl.config import NAMED
from scaling_fl.config.files import SUFFIXES, TEXTS, NotSettings, read_settings_file
from scaling_fl.config.problems import Problem, known_settings


@dataclass
class TypedSettings:
    """What was typed after ``with``, and what is wrong about it."""

    named: list[str] = field(default_factory=list)
    """The named configurations and files, in their order."""
    base: dict[str, Any] = field(default_factory=dict)
    """What those set; a later one overrules an earlier one."""
    values: dict[str, str] = field(default_factory=dict)
    """What stands after = for every dotted path before it."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def updates(self) -> dict[str, Any]:
        """What ``key=value`` sets, in nested sections."""
        nested: dict[str, Any] = {}
        for path, text in self.values.items():
            _place(nested, path, read_value(path, text))
        return nested

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that were typed, in nested sections; ``key=value`` overrules the others."""
        return merged(self.base, self.updates)


def read_typed(texts: Sequence[str], folders: Sequence[Path]) -> TypedSettings:
    """Read what follows ``with``; a file is looked for in ``folders``, in turn."""
    typed = TypedSettings()
    for text in _joined(texts, typed.problems):
        path, equals, value = text.partition("=")
        if not equals:
            typed.named.append(text)
            typed.base = merged(typed.base, _named(text, folders, typed.problems))
        elif "" in path.strip().split("."):
            rule = "must have the name of a setting before ="
            typed.problems.append(Problem(repr(text), rule, "none", "type it as num_rounds=3"))
        elif value.endswith(",") and "(" not in value:
            rule, remedy = "must be typed without a comma", f"type {text.rstrip(',')} and a space"
            typed.problems.append(Problem(path, rule, repr(value), remedy))
        else:
            typed.values.pop(path.strip(), None)  # the last one counts, and its place, too
            typed.values[path.strip()] = value.strip()
    return typed


def merged(settings: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with those of ``other`` over them, section by section."""
    result = dict(settings)
    for key, value in other.items():
        inner = result.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        result[key] = merged(inner, value) if both else value  # type: ignore[arg-type]
    return result


def _joined(texts: Sequence[str], problems: list[Problem]) -> list[str]:
    """Put ``num_rounds = 3`` together again, which a shell hands over as three words."""
    joined: list[str] = []
    is_open = False
    for text in texts:
        is_continued = is_open or (text.startswith("=") and joined and "=" not in joined[-1])
        if is_continued:
            joined[-1] += text
            rule = "must be typed without spaces around ="
            problems[:] = [p for p in problems if p.rule != rule or not is_open]
            key = joined[-1].partition("=")[0]
            problems.append(Problem(key, rule, "spaces", f"type {joined[-1]}"))
        elif text:
            joined.append(text)
        is_open = text == "="
    return joined


def read_value(path: str, text: str) -> Any:
    """Read a value as a Python literal, or else as the text that it is."""
    is_text = path in TEXTS and text != "None"
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if is_text and not is_quoted:
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a backslash, or of a number that has letters
            return _plain(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text[1:-1] if is_text else text


def typed_words(settings: Mapping[str, Any]) -> list[str]:
    """Write plain settings, nested or by dotted path, as they are typed after ``with``."""
    return [f"{path}={typed_text(path, value)}" for path, value in flat_settings(settings)]


def typed_text(path: str, value: Any) -> str:
    """Write a plain value so that it is read as the same, without quotes where it can be."""
    return value if isinstance(value, str) and read_value(path, value) == value else repr(value)


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of every setting."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat_settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: Any) -> Any:
    """Return what JSON has, too, with lists for tuples.

    Raises:
        ValueError: the value has more than that.
    """
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError


def _place(settings: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for section in sections:
        inner = settings.get(section)
        if inner is not None and not isinstance(inner, Mapping):
            return  # what stands in the section's place is told as wrong
        settings[section] = dict(inner or {})
        settings = settings[section]
    both = isinstance(value, Mapping) and isinstance(settings.get(name), Mapping)
    settings[name] = merged(settings[name], value) if both else value


def _named(name: str, folders: Sequence[Path], problems: list[Problem]) -> dict[str, Any]:
    """Return the settings of a named configuration or of a file; empty, and a problem, if none."""
    if name in NAMED:
        return NAMED[name]
    found = next((f / name for f in folders if os.path.isfile(f / name)), None)
    if found is None:
        problems.append(_unknown(name, folders))
        return {}
    try:
        return _nested(_read_file(found))
    except NotSettings as error:
        place = name + (f", line {error.line}," if error.line else "")
        problems.append(Problem(place, error.rule, error.got, "correct the file"))
    except OSError as error:
        reason = error.strerror or str(error)
        problems.append(Problem(name, "must be a file that can be read", reason, "check it"))
    return {}


def _unknown(name: str, folders: Sequence[Path]) -> Problem:
    key = name.rstrip(":")
    if key in known_settings():
        rule = "must be typed with = and its value"
        return Problem(key, rule, repr(name), f"type {key}=VALUE")
    files = [path for folder in folders for path in sorted((folder / "configs").glob("*.yaml"))]
    names = {name: name for name in NAMED} | {path.stem: f"configs/{path.name}" for path in files}
    near = difflib.get_close_matches(Path(name).stem, names, n=1)
    remedy = f"use {names[near[0]]}" if near else "check the path"
    if name.endswith(SUFFIXES):
        places = " or ".join(dict.fromkeys(str(folder) for folder in folders))
        return Problem(name, "must be an existing file", f"none in {places}", remedy)
    if not near:
        remedy = f"use {' or '.join(NAMED)}, a file, or key=value"
    return Problem(name, "must be a named configuration or a file", repr(name), remedy)


def _read_file(path: Path) -> Any:
    found = read_settings_file(path)
    if not isinstance(found, dict):
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise NotSettings("must hold settings such as num_rounds: 3", kind)
    return found


def _nested(found: dict[Any, Any]) -> dict[str, Any]:
    """Take ``adapter.rank: 4`` of a file for a setting of a section, as on the command line."""
    nested: dict[str, Any] = {}
    for key, value in found.items():
        _place(nested, str(key), _nested(value) if isinstance(value, dict) else value)
    return nested


def is_setting(text: str) -> bool:
    """Say whether an argument can only belong after ``with``."""
    key = re.split("[=:]", text)[0]
    return "=" in text or text in NAMED or text.endswith(SUFFIXES) or key in known_settings()
