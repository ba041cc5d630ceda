"""The text of ``print_config``: every setting, its value and its documentation."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scaling_fl.config.base import choices, conditions, sections_in
from scaling_fl.config.schema import Config
from scaling_fl.config.types import redact

_BOLD, _DIM, _RESET = "\033[1m", "\033[2m", "\033[0m"
_NAME_WIDTH = 24


def describe(config_dict: Mapping[str, Any], *, colour: bool, width: int = 110) -> str:
    """Describe every setting, one a line, marking with ``*`` those that differ from the default."""
    lines = ["Configuration (* differs from the default)", ""]
    lines += _Page(colour, width).section(Config, config_dict)
    return "\n".join(lines)


class _Page(NamedTuple):
    colour: bool
    width: int

    def section(
        self, schema: type[BaseModel], values: Mapping[str, Any], path: str = "", indent: int = 0
    ) -> Iterator[str]:
        """Describe the settings of a section; ``path`` is empty for the whole configuration."""
        for name, field in schema.model_fields.items():
            value = values.get(name, field.default)
            inside = {mark: inner for inner, mark in sections_in(field)}
            if "" in inside:
                yield from self._heading(name, field, value, inside[""], indent)
            else:
                yield from self._setting(name, value, field, path, indent)
            if "[]" in inside and isinstance(value, list | tuple):
                yield from self._items(name, value, inside["[]"])
        for name in sorted(set(values) - set(schema.model_fields)):
            yield f"* {' ' * indent}{name} = {_shown(values[name])}  (unknown)"

    def _heading(
        self, name: str, field: FieldInfo, value: Any, schema: type[BaseModel], indent: int
    ) -> Iterator[str]:
        yield ""
        title = f"  {' ' * indent}{name}:"
        first, *rest = _wrapped(str(field.description), self.width - len(title) - 2)
        yield self._styled(title, _BOLD) + self._styled(f"  {first}", _DIM)
        for line in rest:
            yield " " * (len(title) + 2) + self._styled(line, _DIM)
        if isinstance(value, Mapping | BaseModel):
            settings = value if isinstance(value, Mapping) else {}
            yield from self.section(schema, settings, name, indent + 2)
        else:
            yield f"*   {_shown(value)}"

    def _items(self, name: str, values: Sequence[Any], schema: type[BaseModel]) -> Iterator[str]:
        for place, item in enumerate(values) if values else [("", {})]:
            yield ""
            yield self._styled(f"  {name}[{place}]:", _BOLD)
            if isinstance(item, Mapping):
                yield from self.section(schema, item, f"{name}[]", indent=2)

    def _setting(
        self, name: str, value: Any, field: FieldInfo, section: str, indent: int
    ) -> Iterator[str]:
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        changed = value != default
        label = f"{'*' if changed else ' '} {' ' * indent}{name}"
        setting = f"{label:<{_NAME_WIDTH + 2}} = {_shown(value)}"
        column = _NAME_WIDTH + 6 + (22 if self.width >= 100 else 10)
        text = _documentation(field, section) + (f" Default: {_shown(default)}." * changed)
        documentation = _wrapped(text, max(30, self.width - column))
        styled = self._styled(setting, _BOLD if changed else "")
        if len(setting) < column:
            first = styled + " " * (column - len(setting))
            yield first + self._styled(documentation.pop(0), _DIM)
        else:  # a long value takes a line of its own
            for line in _wrapped(setting, self.width, " " * (_NAME_WIDTH + 6)):
                yield self._styled(line, _BOLD if changed else "")
        for line in documentation:
            yield " " * column + self._styled(line, _DIM)

    def _styled(self, text: str, style: str) -> str:
        return f"{style}{text}{_RESET}" if self.colour and style else text


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _documentation(field: FieldInfo, section: str) -> str:
    """Say what a setting means, which names it may have and which settings it works with."""
    named = [f"Choices: {', '.join(choices(field))}."] if choices(field) else []
    needed = [condition.inside(section).note for condition in conditions(field)]
    return " ".join([str(field.description), *named, *needed])


def _shown(value: Any) -> str:
    return redact(repr(value))
