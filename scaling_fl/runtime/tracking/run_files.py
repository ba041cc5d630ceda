"""How a run folder's files are written: plain JSON, growing tables, each file replaced whole."""

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from scaling_fl.core.json_text import json_text
from scaling_fl.runtime.storage.plain_files import read_plain

CLIENT_COLUMNS = [
    "round",
    "client",
    "tier",
    "num_examples",
    "loss",
    "accuracy",
    "update_norm",
    "download_bytes",
    "upload_bytes",
    "seconds",
]
FRACTIONS = {"loss", "accuracy", "update_norm", "seconds"}
COMMUNICATION_COLUMNS = ["federated_round", "sender", "receiver", "amount_of_bytes"]
NAME = "name"
"""A further column of clients.csv, of runs whose clients have names."""
SERVER = -1
TABLE_NAMES = ("clients.csv", "comm_log.csv")


Rows = Sequence[Mapping[str, Any]]


class GrowingTable:
    """A CSV text of which only the new rows are rendered, unless earlier rows have changed.

    ``columns`` names them for all rows; ``lines`` turns a row into the lines that it takes.
    """

    def __init__(
        self,
        columns: Callable[[Rows], list[str]],
        lines: Callable[[Mapping[str, Any], list[str]], list[list[Any]]],
    ) -> None:
        self._columns, self._lines = columns, lines
        self._header: list[str] = []
        self._text, self._count = b"", 0
        self._last: dict[str, Any] | None = None

    def render(self, rows: Rows) -> bytes:
        header = self._columns(rows)
        has_changed = self._count and (
            self._count > len(rows) or rows[self._count - 1] != self._last
        )
        if has_changed or header != self._header:
            self._header, self._text, self._count = header, _csv_text([header]), 0
        new = [line for row in rows[self._count :] for line in self._lines(row, header)]
        self._text += _csv_text(new)
        self._count, self._last = len(rows), dict(rows[-1]) if rows else None
        return self._text


def _client_columns(rows: Rows) -> list[str]:
    has_names = bool(rows) and NAME in rows[-1]
    return CLIENT_COLUMNS + [NAME] * has_names


def _client_lines(row: Mapping[str, Any], columns: list[str]) -> list[list[Any]]:
    return [[row.get(column) for column in columns]]


def _communication_lines(row: Mapping[str, Any], columns: list[str]) -> list[list[Any]]:
    start, client = row["round"], row.get("client")
    return [
        [start, SERVER, client, row.get("download_bytes", 0)],
        [start, client, SERVER, row.get("upload_bytes", 0)],
    ]


def tables() -> dict[str, GrowingTable]:
    """Make the tables that are kept of every run, by file name."""
    clients = GrowingTable(_client_columns, _client_lines)
    communication = GrowingTable(lambda rows: COMMUNICATION_COLUMNS, _communication_lines)
    return dict(zip(TABLE_NAMES, (clients, communication), strict=True))


def _csv_text(lines: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def read_clients(text: str) -> list[dict[str, Any]]:
    """Read clients.csv back into the rows that it was written from."""
    return [
        {name: _number(name, value) for name, value in row.items() if value}
        for row in csv.DictReader(io.StringIO(text))
    ]


def _number(name: str, value: str) -> int | float | str:
    if name == NAME:
        return value
    return float(value) if name in FRACTIONS else int(value)


def plain(value: Any, clean: Callable[[str], str] = str) -> Any:
    """Turn a value into what JSON knows: arrays become lists, times ISO-8601, the rest text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, clean) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, clean) for item in value]
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return plain(value.tolist(), clean)
    return clean(str(value))


def read_run(folder: Path, uid: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Read run.json and info.json of a folder, if it is the folder of that job."""
    with suppress(OSError, ValueError):
        info = json.loads(read_plain(folder / "info.json"))
        if info.get("uid") == uid:
            return json.loads(read_plain(folder / "run.json")), info
    return None


def metrics_json(metrics: Mapping[str, Any]) -> bytes:
    """Write curves as JSON gave them, and without indentation: every round writes all of them."""
    return json_text(metrics).encode()


def replace_file(path: Path, data: bytes, *, owner: str = "") -> None:
    """Write a file so that it is seen whole or as it was; ``owner`` keeps several writers apart."""
    replace_files({path: data}, owner=owner)


def replace_files(contents: Mapping[Path, bytes], *, owner: str = "") -> None:
    """Write files, each seen whole or as it was; none is touched unless there is room for all."""
    # No fsync: a kill loses nothing that was written, and after a power cut the journal, which
    # is synced, has it all.
    staged = {path: path.with_name(f".{path.name}{owner}.tmp") for path in contents}
    try:
        for path, temporary in staged.items():
            temporary.write_bytes(contents[path])
        for path, temporary in staged.items():
            os.replace(temporary, path)
    except OSError:
        for temporary in staged.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise


def copy_file(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def store_by_content(source: Path, store: Path) -> Path:
    """Keep a copy of a file under its name and the md5 of its content, once."""
    content = source.read_bytes()
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    stored = store / f"{source.stem}_{digest}{source.suffix}"
    if not stored.exists():
        store.mkdir(parents=True, exist_ok=True)
        replace_file(stored, content, owner=f".{os.getpid()}")
    return stored


def place_folder(staged: Path, *, wanted_name: str | None) -> Path:
    """Rename a folder to the wanted name if it is free, else to the next number beside it."""
    names = [wanted_name] if wanted_name else []
    while True:
        target = staged.with_name(names.pop() if names else str(_next_number(staged.parent)))
        try:
            staged.rename(target)
        except OSError:
            if not target.exists():
                raise
        else:
            return target


def _next_number(folder: Path) -> int:
    numbers = (int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    return 1 + max(numbers, default=0)


def commit_of_image(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Name what an image was built from, as Sacred does where there is a repository."""
    commit = environ.get("SCALING_FL_COMMIT")
    dirty = environ.get("SCALING_FL_DIRTY") == "1"
    return [{"url": None, "commit": commit, "dirty": dirty}] if commit else []
