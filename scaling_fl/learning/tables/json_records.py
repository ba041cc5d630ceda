"""JSON as tables have it: a list of records, or one record a line."""

import json
from collections.abc import Iterator
from typing import Any

from scaling_fl.learning.tables.kinds import JSON, TEXT
from scaling_fl.learning.tables.sources import open_text, reading
from scaling_fl.learning.text.labelled import DataError

_HEAD_CHARACTERS = 1 << 16


def json_records(path: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (number, what it counts, record) of a list of records, or of one record a line.

    Raises:
        DataError: the file is not that.
    """
    with reading(path), open_text(path, TEXT, JSON) as file:
        head = file.read(_HEAD_CHARACTERS)
        if head.lstrip().startswith("["):
            records = _parsed(head + file.read(), path)
            for number, record in enumerate(records, start=1):
                yield number, "record", _checked(record, f"{path}, record {number}")
            return
        for number, line in enumerate(_lines(head, file), start=1):
            if line.strip():
                where = f"{path}, row {number}"
                yield number, "row", _checked(_parsed(line, where), where)


def _lines(head: str, file: Any) -> Iterator[str]:
    *lines, rest = head.split("\n")
    yield from lines
    yield rest + file.readline()
    yield from file


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"{where}: the file must be JSON (a list of records, or one record a line), and is not "
            f"({error}); correct it."
        ) from None


def _checked(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise DataError(
            f'{where}: a record must be an object such as {{"text": "...", "label": "..."}}, got '
            f"{json.dumps(record)[:40]}; correct it."
        )
    return record
