"""What the configuration and its sections have in common, and what a field says of itself."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from scaling_fl.config.conditions import Condition
from scaling_fl.config.types import Choices


class Section(BaseModel):
    """The behaviour shared by the configuration and its sections."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )


def options_of(settings: Section, choice: str) -> dict[str, Any]:
    """Collect the settings that work with the method that is chosen, by the field ``choice``."""
    return {
        name: getattr(settings, name)
        for name, field in type(settings).model_fields.items()
        for condition in conditions(field)
        if condition.paths == (f".{choice}",) and condition.inside("").holds(settings)
    }


def conditions(field: FieldInfo) -> list[Condition]:
    """List what a setting needs of other settings to have an effect."""
    return [note for note in field.metadata if isinstance(note, Condition)]


def choices(field: FieldInfo) -> list[str]:
    """List what ``Choices(...)``, ``Literal[...]`` or ``Literal[...] | None`` allows."""
    parts = (field.annotation, *get_args(field.annotation))
    notes = [*field.metadata, *(note for part in parts for note in get_args(part))]
    named = [name for note in notes if isinstance(note, Choices) for name in note.names]
    return named + [str(n) for part in parts for n in get_args(part) if isinstance(n, str | int)]


def sections_in(field: FieldInfo) -> list[tuple[type[BaseModel], str]]:
    """Return the section that a field has (with ""), or that it has a list of (with "[]")."""
    parts = [(field.annotation, ""), *((part, "[]") for part in get_args(field.annotation))]
    return [(p, mark) for p, mark in parts if isinstance(p, type) and issubclass(p, BaseModel)]


def leaves(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """List the settings of nested sections as (dotted path, value)."""
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        path = f"{prefix}{key}"
        found += leaves(value, f"{path}.") if isinstance(value, dict) else [(path, value)]
    return found
