"""The manifest of a checkpoint: what it must say, and how a checkpoint is held against it."""

import hashlib
import json
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scaling_fl.core.digest import digest
from scaling_fl.core.errors import InputError
from scaling_fl.core.json_text import finite, json_text
from scaling_fl.core.vector import Layout

STATE, OPTIMISER, CONFIG = "state.safetensors", "optimiser.safetensors", "config.json"
MANIFEST = "manifest.json"
FORMAT = 1

_MOST_SHOWN = 3
_LONGEST_SHOWN = 60


_Count = Annotated[int, Field(ge=0, lt=2**53)]
_STRICT = ConfigDict(strict=True)


class _File(BaseModel):
    model_config = _STRICT
    bytes: _Count
    sha256: str


class _Progress(BaseModel):
    """What the recorder keeps in a manifest; older versions kept less."""

    model_config = _STRICT
    total_bytes: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    num_threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    computation: dict[str, Any] = {}


class _Manifest(BaseModel):
    """The fields of a manifest that its readers rely on, and their types."""

    model_config = _STRICT
    round: _Count
    digest: str
    cohort: list[int]
    identity: dict[str, Any]
    progress: _Progress
    layout: list[tuple[str, list[_Count]]]
    dtype: Literal["float32"]
    files: dict[Literal["state.safetensors", "optimiser.safetensors", "config.json"], _File]


class CheckpointMismatch(InputError):
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


def write_manifest(folder: Path, head: dict[str, Any]) -> None:
    """Write the manifest of the files in a folder, with a hash of its own content."""
    files = {name: describe_file(folder / name) for name in (STATE, OPTIMISER, CONFIG)}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = finite({"format": FORMAT, "time": now, **head, "files": files})
    text = json_text(manifest | {"sha256": _content_digest(manifest)}, indent=1)
    (folder / MANIFEST).write_text(text)


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
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise TornCheckpoint("its manifest cannot be read") from None
    if type(version) is int and version > FORMAT:
        raise CheckpointMismatch(
            f"a checkpoint must have format {FORMAT}, got format {version} in round {number};"
            " continue it with the version of the program that wrote it."
        )
    if version != FORMAT or written != _content_digest(manifest):
        raise TornCheckpoint("its manifest is not what was written")
    _check_fields(data)
    _check_layout(manifest)
    if manifest["round"] != number:
        raise TornCheckpoint(f"its manifest is that of round {manifest['round']}")
    return dict(manifest)


def _check_fields(data: bytes) -> None:
    try:
        files = _Manifest.model_validate_json(data).files
    except ValidationError as errors:
        first = errors.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "all"
        fault = "lacks" if first["type"] == "missing" else "has no valid value for"
        raise TornCheckpoint(f"its manifest {fault} {name}") from None
    for name in (STATE, OPTIMISER, CONFIG):
        if name not in files:
            raise TornCheckpoint(f"its manifest lacks files.{name}")


def _check_layout(manifest: dict[str, Any]) -> None:
    """Refuse a layout that could not be that of the state, before room is made for it."""
    layout = Layout.from_json(manifest["layout"])
    if len(set(layout.names)) < len(layout.names):
        raise TornCheckpoint("its layout has a name twice")
    if 4 * layout.size > manifest["files"][STATE]["bytes"]:
        raise TornCheckpoint("its layout is larger than its state")


def _content_digest(manifest: dict[str, Any]) -> str:
    # Through JSON once, because that turns tuples into lists and all keys into strings.
    plain = json.loads(json.dumps(manifest))
    return digest(plain)


def check_matches(
    manifest: dict[str, Any], layout: Layout, identity: dict[str, Any], where: str
) -> None:
    """Raise CheckpointMismatch, with the first differences, unless a checkpoint can go on."""
    found = _setting_differences(manifest["identity"], json.loads(json.dumps(identity)))
    # Where a setting differs, that of the parameters is its consequence.
    found = _first(found, "settings") or layout_differences(
        manifest["layout"], json.loads(json.dumps(layout.to_json()))
    )
    if found:
        raise CheckpointMismatch(
            f"the checkpoint {where} cannot be continued: {'; '.join(found)}; restore the old"
            " settings, or start anew with another job_name or checkpoints_dir."
        )


def _setting_differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Name what differs, down to the single setting or label."""
    if old == new:
        return []
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        pairs = [(f"{name}.{key}" if name else key, old.get(key), new.get(key)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        rows = enumerate(zip(old, new, strict=True))
        pairs = [(f"{name}[{index}]", *pair) for index, pair in rows]
    if pairs:
        return [
            text
            for key, before, after in pairs
            for text in _setting_differences(before, after, key)
        ]
    return [f"{name} was {_show(old)}, is now {_show(new)}"]


def _first(found: list[str], kind: str) -> list[str]:
    rest = len(found) - _MOST_SHOWN
    return found[:_MOST_SHOWN] + ([f"and {rest} more {kind} differ"] if rest > 0 else [])


def layout_differences(old: list[Any], new: list[Any]) -> list[str]:
    """Name the first parameters that two layouts, as JSON gave them, do not share."""
    pairs = enumerate(zip_longest(old, new))
    found = [
        f"parameter {index} was {_parameter(before)}, is now {_parameter(after)}"
        for index, (before, after) in pairs
        if before != after
    ]
    return _first(found, "parameters")


def _parameter(entry: list[Any] | None) -> str:
    return "absent" if entry is None else f"{entry[0]} {entry[1]}"


def _show(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, list | dict) and len(json.dumps(value)) > _LONGEST_SHOWN:
        return f"{len(value)} values"
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."
