"""Images in the cells of a table: paths of files, or their content as Hugging Face's hub has it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from scaling_fl.learning.images.decoding import Pixels, decode, read_image
from scaling_fl.learning.tables.records import Records
from scaling_fl.learning.tables.sources import is_remote
from scaling_fl.learning.text.labelled import DataError


def reader_of(records: Records, column: str) -> Callable[[int], Pixels]:
    """Return what decodes the image of a row, given its number from 0."""
    folder = Path(records.path).parent

    def read(row: int) -> Pixels:
        cell = _plain(records.cells[column][row])
        if isinstance(cell, bytes):
            return decode(cell, records.place(row, column))
        return read_image(_path(cell, folder, records.place(row, column)))

    return read


def paths_in(records: Records, column: str) -> list[Path]:
    """Return the local files that the cells of a column name."""
    folder = Path(records.path).parent
    cells = map(_plain, records.cells[column])
    named = [str(cell) for cell in cells if isinstance(cell, str) and not is_remote(cell)]
    return [folder / name for name in dict.fromkeys(named)]


def _plain(cell: Any) -> Any:
    """Return the content or the path of an image, of which the hub's cells have both."""
    return (cell.get("bytes") or cell.get("path")) if isinstance(cell, dict) else cell


def _path(cell: Any, folder: Path, place: str) -> str:
    if not isinstance(cell, str) or not cell.strip():
        raise DataError(
            f"{place}: a cell must be the path of an image (inside the table's folder, or absolute)"
            f" or its content, got {str(cell)[:40]!r}; fill it in or name another column."
        )
    return cell if is_remote(cell) else str(folder / cell)
