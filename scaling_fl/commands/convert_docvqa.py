"""The command ``scripts/convert_docvqa.py``: the competition's files -> one Parquet file.

Its process reads pickles as data alone; no run reads any.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scaling_fl.commands.endings import Misused, end, show, stage
from scaling_fl.learning.safe_pickle import load_plain
from scaling_fl.learning.tables.sources import reading
from scaling_fl.learning.tasks.documents.rows import thousandths
from scaling_fl.learning.text.labelled import DataError
from scaling_fl.runtime.storage.base import explained

_CLIENT = re.compile(r"_client_(\w+)$")
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class ConversionRequest:
    """What was asked for."""

    files: list[Path]
    out: Path
    images: Path | None = None
    providers: Path | None = None


def main(options: Mapping[str, Any]) -> int:
    """Run the command with its parsed options; returns the exit code."""
    return end(partial(_run, ConversionRequest(**options)))


def _run(request: ConversionRequest) -> None:
    if request.out.exists():
        raise Misused(
            f"--out must name a file that does not exist yet, and {request.out} does; choose "
            "another one or remove it."
        )
    show(convert(request))


def convert(request: ConversionRequest) -> str:
    """Write the file that was asked for, whole or not at all, and say what is in it.

    Raises:
        UserError: a file is not as the competition's are, or an image is missing.
    """
    import pyarrow as pa  # takes a fourth of a second
    import pyarrow.parquet as pq

    providers = _read_providers(request.providers)
    half_written = request.out.with_name(f".{request.out.name}.part")
    number, clients, images = 0, set(), set()
    with explained(f"write {request.out}"):
        request.out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with pq.ParquetWriter(half_written, _schema()) as writer:
                for rows in _batches(request.files, providers, request.images):
                    writer.write_table(pa.Table.from_pylist(rows, schema=_schema()))
                    number += len(rows)
                    clients |= {row["client"] for row in rows} - {None}
                    images |= {row["image"] for row in rows}
            half_written.replace(request.out)
        finally:
            half_written.unlink(missing_ok=True)
    of_clients = f" of {len(clients)} clients" if clients else ""
    return f"wrote {request.out}: {number} questions{of_clients} about {len(images)} pages"


def _schema() -> Any:
    import pyarrow as pa

    texts, box = pa.list_(pa.string()), pa.list_(pa.float64(), 4)
    columns = {"question": pa.string(), "answers": texts, "words": texts, "boxes": pa.list_(box)}
    names = ("image", "client", "provider", "question_id", "set_name")
    return pa.schema({**columns, **dict.fromkeys(names, pa.string())})


def _batches(
    files: Sequence[Path], providers: Mapping[str, Mapping[int, str]], images: Path | None
) -> Iterator[list[dict[str, Any]]]:
    for file in files:
        stage(f"reading {file}")
        found = _CLIENT.search(file.stem)
        client = found[1] if found else None
        owners = providers.get(client or "", {})
        records = read_records_of(file)
        # The header is number 0, also in the list of what is whose.
        rows = (
            _row(record, f"{file}, record {number}", client, owners.get(number), images)
            for number, record in enumerate(records[1:], 1)
        )
        yield from _several(rows)


def _several(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def read_records_of(path: Path) -> list[Any]:
    """Read an array of objects as NumPy saved it: a header, then a record for each question.

    Raises:
        DataError: it is no such file, or holds anything else than plain values and arrays.
    """
    with reading(str(path)), path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(file)
        except ValueError as error:
            raise _no_records(path, str(error).split("\n", 1)[0].rstrip(".")) from error
        if dtype != np.dtype(object) or len(shape) != 1:
            raise _no_records(path, f"it is of {dtype} and the shape {shape}")
        found = load_plain(file, str(path))
    records = found.tolist() if isinstance(found, np.ndarray) else None
    if not isinstance(records, list) or len(records) != shape[0]:
        raise _no_records(path, "its content is not what its header says")
    return records


def _no_records(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: this must be a row of records that NumPy saved, and is not ({reason}); fetch it "
        "again from where the data was published."
    )


def _row(
    record: Any, place: str, client: str | None, provider: str | None, images: Path | None
) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise DataError(f"{place}: this must be a record with names, and is none; fetch it again.")
    try:
        answers, words = record["answers"], [str(word) for word in record["ocr_tokens"]]
        boxes = np.array(list(record["ocr_normalized_boxes"]), np.float64).reshape(-1, 4)
        question, image = str(record["question"]), f"{record['image_name']}.jpg"
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{place}: a record must have question, answers, ocr_tokens, ocr_normalized_boxes and "
            f"image_name, and this one does not ({error}); fetch the file again."
        ) from error
    if len(boxes) != len(words):
        raise DataError(
            f"{place}: every word must have a box, got {len(words)} words and {len(boxes)} boxes; "
            "fetch the file again."
        )
    thousandths(boxes, place)
    if images is not None and not (images / image).is_file():
        raise DataError(
            f"{place}: the image of the page must be in {images}, and {image} is not; fetch it, or "
            "leave --images out."
        )
    set_name = str(record.get("set_name", ""))
    return {
        "question": question,
        "answers": [answers] if isinstance(answers, str) else [str(each) for each in answers],
        "words": words,
        "boxes": boxes.tolist(),
        "image": image,
        "client": client,
        "provider": provider,
        "question_id": str(record.get("question_id", place.rpartition(" ")[2])),
        "set_name": set_name,
    }


def _read_providers(path: Path | None) -> dict[str, dict[int, str]]:
    """Read client -> provider -> records as client -> record -> provider."""
    if path is None:
        return {}
    with reading(str(path)):
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            client.removeprefix("client_"): {
                int(number): provider for provider, numbers in of.items() for number in numbers
            }
            for client, of in content.items()
        }
