"""What a setting needs of other settings to have an effect: annotations of the fields.

``Annotated[Count, With("adapter.kind", "lora", "dora")]`` is a setting that works only when
``adapter.kind`` is lora or dora. The rule, its remedy and the documentation of the setting follow
from the annotation. A path that begins with a dot is of a setting in the same section.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from copy import copy
from functools import reduce
from typing import Any, Self

from pydantic import BaseModel

from scaling_fl.config.own import is_own
from scaling_fl.config.types import INSTRUCTION_TASKS


def value_at(settings: Any, path: str) -> Any:
    """Return the setting at a dotted path, in plain types.

    A path such as ``tiers[].rank`` gives the list of what the tiers set. Of a section, only what
    differs from the defaults is returned.
    """
    items, of_each, name = path.partition("[].")
    if of_each:
        return [value_at(item, name) for item in _get(settings, items) if is_set(item, name)]
    return _plain(_get(settings, path))


def is_set(settings: BaseModel, path: str) -> bool:
    """Say whether the setting at a dotted path differs from its default."""
    return bool(value_at(settings, path) != value_at(type(settings)(), path))


def _get(settings: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), settings)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def listed(words: Iterable[Any], last: str = "or") -> str:
    """Write words as ``a, b or c``."""
    *first, final = map(str, words)
    return f"{', '.join(first)} {last} {final}" if first else final


class Condition(ABC):
    """What must be true of the settings at ``paths``, and why (the words after "because")."""

    def __init__(self, *paths: str, because: str = "") -> None:
        self.paths, self.because = paths, because

    @abstractmethod
    def holds(self, settings: Any) -> bool:
        """Say whether a setting with this condition has an effect on the clients of one tier."""

    @abstractmethod
    def remedy(self, path: str) -> str:
        """Say what to do when the setting at ``path`` has no effect."""

    @property
    @abstractmethod
    def note(self) -> str:
        """The condition as a part of the documentation of a setting."""

    @property
    @abstractmethod
    def _when(self) -> str:
        """The condition as the end of a rule."""

    @property
    def rule(self) -> str:
        because = f", because {self.because}" if self.because else ""
        return f"must be left alone {self._when}{because}"

    def inside(self, section: str) -> Self:
        """Write out the paths that are relative to a section (empty: the whole configuration)."""
        found = copy(self)
        paths = (f"{section}{path}" if path.startswith(".") else path for path in self.paths)
        found.paths = tuple(path.removeprefix(".") for path in paths)
        return found


class With(Condition):
    """The setting works only when another setting has one of these values."""

    def __init__(self, path: str, *values: Any, because: str = "") -> None:
        super().__init__(path, because=because)
        self.values = values

    def holds(self, settings: Any) -> bool:
        return value_at(settings, self.paths[0]) in self.values

    def remedy(self, path: str) -> str:
        return f"set {self.paths[0]}={listed(self.values)}, or drop {path}"

    @property
    def note(self) -> str:
        return f"Only with {self.paths[0]}={listed(self.values)}."

    @property
    def _when(self) -> str:
        return f"unless {self.paths[0]} is {listed(self.values)}"


class WithTask(With):
    """The setting works only with one of these tasks, or with one of the user's own."""

    def __init__(self, *names: str) -> None:
        super().__init__("task_name", *names)

    def holds(self, settings: Any) -> bool:
        return super().holds(settings) or is_own(settings.task_name)

    @property
    def note(self) -> str:
        return f"Only with task_name={', '.join(self.values)}, or a task of your own."


OF_INSTRUCTIONS = With("task_name", *INSTRUCTION_TASKS)
"""The setting is of the tasks that teach a language model to answer."""


class WithSet(Condition):
    """The setting works only when one of other settings, or more, differ from their defaults."""

    def holds(self, settings: Any) -> bool:
        return any(is_set(settings, path) for path in self.paths)

    def remedy(self, path: str) -> str:
        return f"set {listed(self.paths)}, or drop {path}"

    @property
    def note(self) -> str:
        return f"Only with {listed(self.paths)}."

    @property
    def _when(self) -> str:
        return f"unless {listed(self.paths)} is set"


class Without(Condition):
    """The setting works only when all of these other settings have their defaults."""

    def holds(self, settings: Any) -> bool:
        return not any(is_set(settings, path) for path in self.paths)

    def remedy(self, path: str) -> str:
        return f"drop {path} or {listed(self.paths)}"

    @property
    def note(self) -> str:
        return f"Not with {listed(self.paths)}."

    @property
    def _when(self) -> str:
        return f"when {listed(self.paths)} is set"
