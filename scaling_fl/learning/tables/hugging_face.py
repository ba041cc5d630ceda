"""Data sets on disk as ``save_to_disk`` of Hugging Face's datasets writes them, also in stores.

``datasets`` takes a second to import, so only the reading of rows imports it; what a data set has
is in its JSON files.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scaling_fl.learning.tables.sources import file_digest, is_remote, reading
from scaling_fl.learning.text.labelled import DataError

if TYPE_CHECKING:
    from scaling_fl.learning.task import Split

_SPLITS, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"


def is_dataset(path: str) -> bool:
    """Say whether a folder or an address is that of a data set, with splits or without."""
    import fsspec

    with reading(path):
        filesystem, root = fsspec.url_to_fs(path, **_options(path))
        return any(filesystem.exists(f"{root.rstrip('/')}/{name}") for name in (_SPLITS, _STATE))


def split_folder(path: str, split: "Split") -> str:
    """Return the folder of a split: of a data set without splits its own.

    Raises:
        DataError: the data set has splits of other names.
    """
    import fsspec

    folder = path.rstrip("/")
    with reading(path):
        filesystem, root = fsspec.url_to_fs(folder, **_options(path))
        if not filesystem.exists(f"{root}/{_SPLITS}"):
            return folder
        splits = json.loads(filesystem.cat_file(f"{root}/{_SPLITS}"))["splits"]
    if split not in splits:
        other = splits[-1] if splits else split
        raise DataError(
            f"{path}: the data set must have a split named {split}, and has {', '.join(splits)}; "
            f"name a split's own folder, such as {split}_path={folder}/{other}."
        )
    return f"{folder}/{split}"


def dataset_columns(path: str, split: "Split") -> list[str]:
    """Return the names of the columns of a split."""
    return list(_features(split_folder(path, split)))


def read_dataset(
    path: str, split: "Split", names: Sequence[str]
) -> tuple[dict[str, list[Any]], dict[str, list[str]]]:
    """Read some columns of a split, and the names of those that hold classes by number."""
    folder = split_folder(path, split)
    from datasets import load_from_disk
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars

    if not are_progress_bars_disabled():
        disable_progress_bars()
    with reading(path):
        table = load_from_disk(folder).with_format("arrow").select_columns(list(names))[:]
        cells = {name: table.column(name).to_pylist() for name in names}
    return cells, names_of_classes(_features(folder))


def dataset_digest(path: str, split: "Split") -> str:
    """Identify the content of a split by its files; a store's own checksums stand for them."""
    import fsspec

    folder = split_folder(path, split)
    with reading(path):
        filesystem, root = fsspec.url_to_fs(folder, **_options(path))
        files = sorted(str(name) for name in filesystem.find(root))
        scheme = f"{path.partition('://')[0]}://" if is_remote(path) else ""
    found = [[name.removeprefix(root), file_digest(f"{scheme}{name}")] for name in files]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def names_of_classes(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of the columns whose numbers stand for names, as datasets describes them."""
    return {
        column: list(feature["names"])
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        if isinstance(feature.get("names"), list)
    }


def _features(folder: str) -> dict[str, Any]:
    import fsspec

    with reading(folder), fsspec.open(f"{folder}/{_INFO}", "rt", encoding="utf-8") as file:
        return dict(json.load(file)["features"])


def _options(path: str) -> dict[str, Any]:
    return {"use_listings_cache": False} if is_remote(path) else {}
