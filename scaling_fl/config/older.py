"""Settings as earlier versions named them, and what stands for each of them today."""

from collections.abc import Mapping
from typing import Any

OLDER: dict[tuple[str, str], tuple[str, str]] = {
    ("merge.divide_by", "all"): ("merge.method", "mean"),
    ("merge.divide_by", "senders"): ("merge.method", "mean_of_senders"),
}
"""The older (path, value) -> the (path, value) of today."""


def in_todays_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the settings that an earlier version has stored."""
    found = {k: in_todays_names(v) if isinstance(v, Mapping) else v for k, v in stored.items()}
    for (path, value), (new_path, new_value) in OLDER.items():
        section, name = path.split(".")
        new_section, new_name = new_path.split(".")
        if _has(found, section, name, value):
            del found[section][name]
            found.setdefault(new_section, {})[new_name] = new_value
    return found


def _has(settings: Mapping[str, Any], section: str, name: str, value: str) -> bool:
    inner = settings.get(section)
    return isinstance(inner, Mapping) and name in inner and inner[name] == value


def in_older_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Translate settings by dotted path back, so that jobs keep the digests that they had."""
    found = dict(settings)
    for (path, value), (new_path, new_value) in OLDER.items():
        if found.get(new_path) == new_value:
            del found[new_path]
            found[path] = value
    return found


def todays_name(path: str, value: Any) -> str | None:
    """Return what to write today for an older setting, such as ``merge.method=mean``."""
    names = {old: f"{new}={given}" for (old, was), (new, given) in OLDER.items() if was == value}
    paths = {old: new for (old, _), (new, _) in OLDER.items()}
    return names.get(path) or paths.get(path)
