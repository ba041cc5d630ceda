"""The manifest of a checkpoint: what it must say, and how a checkpoint is held against it."""

import hashlib
import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

from scaling_fl.core.digest import digest
from scaling_fl.core.errors import UserError
from scaling_fl.core.vector import Layout

STATE, OPTIMISER, CONFIG = "state.safetensors", "optimiser.safetensors", "config.json"
MANIFEST = "manifest.json"
FORMAT = 1

_MOST_SHOWN = 3


class CheckpointMismatch(UserError):
    """A whole checkpoint belongs to something else than what is to be continued."""


class TornCheckpoint(Exception):
    """A checkpoint is not what its manifest says; the message is a short clause."""


def describe_file(path: Path) -> dict[str, Any]:
    """Measure a file as the manifest records it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def check_file(path: Path, name: str, expected: dict[str, Any]) -> None:
    """Raise TornCheckpoint unless a file has the recorded size and hash."""
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise TornCheckpoint(f"{name} has {size} bytes instead of {expected['bytes']}")
    if describe_file(path)["sha256"] != expected["sha256"]:
        raise TornCheckpoint(f"{name} does not have its recorded sha256")


def render_manifest(manifest: dict[str, Any]) -> str:
    """Write a manifest as JSON, with a hash of its own content."""
    return json.dumps(manifest | {"sha256": _content_digest(manifest)}, indent=1)


def parse_manifest(data: bytes, number: int) -> dict[str, Any]:
    """Read the manifest of a round.

    Raises:
        TornCheckpoint: it is not what was written.
        CheckpointMismatch: a later version of the program wrote it.
    """
    try:
        manifest = json.loads(data)
        written = manifest.pop("sha256", None)
        version = manifest["format"]
    except (ValueError, AttributeError, KeyError, TypeError):
        raise TornCheckpoint("its manifest cannot be read") from None
    if version != FORMAT:
        raise CheckpointMismatch(
            f"a checkpoint must have format {FORMAT}, got format {version} in round {number};"
            " continue it with the version of the program that wrote it."
        )
    if written != _content_digest(manifest) or manifest["round"] != number:
        raise TornCheckpoint("its manifest is not what was written")
    return dict(manifest)


def _content_digest(manifest: dict[str, Any]) -> str:
    # Through JSON once, because that turns tuples into lists and all keys into strings.
    plain = json.loads(json.dumps(manifest))
    return digest(plain)


def check_matches(
    manifest: dict[str, Any], layout: Layout, identity: dict[str, Any], where: str
) -> None:
    """Raise CheckpointMismatch, naming every difference, unless a checkpoint can be continued."""
    found = [
        *_setting_differences(manifest["identity"], json.loads(json.dumps(identity))),
        *layout_differences(manifest["layout"], json.loads(json.dumps(layout.to_json()))),
    ]
    if manifest["dtype"] != "float32":
        found.append(f"its state is {manifest['dtype']} and must be float32")
    if found:
        raise CheckpointMismatch(
            f"the checkpoint {where} cannot be continued: {'; '.join(found)}; restore the old"
            " settings, or start anew with another job_name or checkpoints_dir."
        )


def _setting_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    absent = "not set"
    return [
        f"{key} was {_show(old.get(key, absent))}, is now {_show(new.get(key, absent))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, absent) != new.get(key, absent)
    ]


def layout_differences(old: list[Any], new: list[Any]) -> list[str]:
    """Name the first parameters that two layouts, as JSON gave them, do not share."""
    pairs = enumerate(zip_longest(old, new))
    found = [
        f"parameter {index} was {_parameter(before)}, is now {_parameter(after)}"
        for index, (before, after) in pairs
        if before != after
    ]
    rest = len(found) - _MOST_SHOWN
    return found[:_MOST_SHOWN] + ([f"and {rest} more parameters differ"] if rest > 0 else [])


def _parameter(entry: list[Any] | None) -> str:
    return "absent" if entry is None else f"{entry[0]} {entry[1]}"


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
