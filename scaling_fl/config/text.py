"""The text of ``print_config``: every setting, its value and its documentation."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scaling_fl.config.schema import Config, choices
from scaling_fl.config.types import redact

_BOLD, _DIM, _RESET = "\033[1m", "\033[2m", "\033[0m"
_NAME_WIDTH, _VALUE_WIDTH = 24, 22


def describe(config_dict: Mapping[str, Any], *, colour: bool, width: int = 110) -> str:
    """Describe every setting, one a line, marking with ``*`` those that differ from the default."""
    lines = ["Configuration (* differs from the default)", ""]
    lines += _section(Config, config_dict, indent=0, colour=colour, width=width)
    return "\n".join(lines)


def _section(
    schema: type[BaseModel], values: Mapping[str, Any], *, indent: int, colour: bool, width: int
) -> Iterator[str]:
    for name, field in schema.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            section = values.get(name, {})
            yield ""
            yield _styled(f"  {' ' * indent}{name}:", _BOLD, colour) + _styled(
                f"  {field.description}", _DIM, colour
            )
            if isinstance(section, Mapping):
                yield from _section(inner, section, indent=indent + 2, colour=colour, width=width)
            else:
                yield f"*   {_shown(section)}"
        else:
            value = values.get(name, field.default)
            yield from _setting(name, value, field, indent=indent, colour=colour, width=width)
            if (listed := _listed_section(field)) and isinstance(value, list | tuple):
                for place, item in enumerate(value) if value else [("", {})]:
                    yield ""
                    yield _styled(f"  {name}[{place}]:", _BOLD, colour)
                    if isinstance(item, Mapping):
                        yield from _section(listed, item, indent=2, colour=colour, width=width)
    for name in sorted(set(values) - set(schema.model_fields)):
        yield f"* {' ' * indent}{name} = {_shown(values[name])}  (unknown)"


def _listed_section(field: FieldInfo) -> type[BaseModel] | None:
    """Return what a list of sections, which is annotated as tuple[section, ...], is made of."""
    first = (*get_args(field.annotation), None)[0]
    return first if isinstance(first, type) and issubclass(first, BaseModel) else None


def _setting(
    name: str, value: Any, field: FieldInfo, *, indent: int, colour: bool, width: int
) -> Iterator[str]:
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    changed = value != default
    label = f"{'*' if changed else ' '} {' ' * indent}{name}"
    setting = f"{label:<{_NAME_WIDTH + 2}} = {_shown(value)}"
    column = _NAME_WIDTH + _VALUE_WIDTH + 6
    text = _documentation(field) + (f" Default: {_shown(default)}." if changed else "")
    documentation = textwrap.wrap(text, max(30, width - column))
    if len(setting) < column:
        first = _styled(setting, _BOLD, colour and changed) + " " * (column - len(setting))
        yield first + _styled(documentation.pop(0), _DIM, colour)
    else:  # a long value takes a line of its own
        yield _styled(setting, _BOLD, colour and changed)
    for line in documentation:
        yield " " * column + _styled(line, _DIM, colour)


def _documentation(field: FieldInfo) -> str:
    named = f" Choices: {', '.join(choices(field))}." if choices(field) else ""
    return f"{field.description}{named}"


def _shown(value: Any) -> str:
    return redact(repr(value))


def _styled(text: str, style: str, colour: bool) -> str:
    return f"{style}{text}{_RESET}" if colour else text
