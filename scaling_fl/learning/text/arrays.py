"""Named arrays in a folder, which all processes map into memory, and facts about them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from scaling_fl.core.json_text import json_text

_MANIFEST = "manifest.json"


def save_arrays(
    folder: Path, columns: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
) -> None:
    """Save arrays of one dimension as a data set of one row: each lies in the file without a gap.

    ``facts`` are JSON values.
    """
    import datasets
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars

    table = pa.table({name: _one_cell(array) for name, array in columns.items()})
    were_shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        datasets.Dataset(table).save_to_disk(folder, num_shards=1)
    finally:
        if were_shown:
            datasets.utils.enable_progress_bars()
    content = _data_file(folder).read_bytes()
    manifest = {**facts, "bytes": len(content), "xxh3": _xxh3(content)}
    (folder / _MANIFEST).write_text(json_text(manifest), encoding="utf-8")


def load_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """View the one cell of each column without a copy, read-only.

    Through pyarrow's buffers: datasets takes seconds to import, and ``to_numpy`` imports pandas.
    """
    source = pa.memory_map(str(_data_file(folder)))
    table = pa.ipc.open_stream(source).read_all()
    return {name: _view(table.column(name).chunk(0).values) for name in table.column_names}


def read_facts(folder: Path) -> Any:
    """Read the facts, and the size and checksum of the arrays beside them."""
    return json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))


def arrays_are_whole(folder: Path) -> bool:
    """Check size and checksum, so that nobody trains on a cut or damaged file."""
    try:
        manifest = read_facts(folder)
        file = _data_file(folder)
        if file.stat().st_size != manifest["bytes"]:
            return False
        with pa.memory_map(str(file)) as content:
            return bool(_xxh3(content.read_buffer()) == manifest["xxh3"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _one_cell(array: NDArray[Any]) -> Any:
    return pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), pa.array(array))


def _view(cell: Any) -> NDArray[Any]:
    _, numbers = cell.buffers()
    return np.frombuffer(numbers, dtype=str(cell.type), count=len(cell))


def _data_file(folder: Path) -> Path:
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return folder / str(state["_data_files"][0]["filename"])


def _xxh3(content: Any) -> str:
    return xxhash.xxh3_128_hexdigest(content)
