"""What a file is, whatever its name says: told by its first bytes."""

import re
from typing import NamedTuple

HEAD_BYTES = 4096
"""So many first bytes are enough for ``kind_of``."""


class Kind(NamedTuple):
    """A kind of file, as a sentence says it: "is {name}; {remedy}"."""

    name: str
    remedy: str


_AS_CSV = "save its rows as CSV in UTF-8"
_UNPACK = "unpack it"

TEXT = Kind("text", "")
"""Text in UTF-8, or in another code of one byte per letter: a table, if it is one at all."""
UTF_16 = Kind("UTF-16 text", "save it as UTF-8")
UTF_32 = Kind("UTF-32 text", "save it as UTF-8")
GZIP = Kind("gzip", f"add .gz to its name, or {_UNPACK}")
BZIP2 = Kind("bzip2", f"add .bz2 to its name, or {_UNPACK}")
XZ = Kind("xz", f"add .xz to its name, or {_UNPACK}")
LZMA = Kind("LZMA", f"add .lzma to its name, or {_UNPACK}")
ZIP = Kind("a zip archive", f"add .zip to its name, or {_UNPACK}")
ZSTD = Kind("Zstandard", f"add .zst to its name, or {_UNPACK}")
SEVEN_ZIP = Kind("a 7-Zip archive", _UNPACK)
RAR = Kind("a RAR archive", _UNPACK)
TAR = Kind("a tar archive", f"{_UNPACK} and name what is in it")
PARQUET = Kind("Parquet", f"{_AS_CSV}, or name it .parquet and set task_name=table")
ARROW = Kind("Arrow", _AS_CSV)
JSON = Kind("JSON", f"{_AS_CSV}, or name it .json or .jsonl and set task_name=table")
OFFICE = Kind("an Office document (as .xlsx is)", _AS_CSV)
ORC = Kind("ORC", _AS_CSV)
AVRO = Kind("Avro", _AS_CSV)
HDF5 = Kind("HDF5", _AS_CSV)
NUMPY = Kind("a NumPy array", _AS_CSV)
PICKLE = Kind("a Python pickle", _AS_CSV)
SQLITE = Kind("an SQLite database", _AS_CSV)
PDF = Kind("PDF", _AS_CSV)
HTML = Kind("an HTML page", "download the file itself, for which this page stands")
XML = Kind("XML", _AS_CSV)
LFS_POINTER = Kind("a Git LFS pointer", "fetch the file itself with: git lfs pull")

_BEGINNINGS: dict[bytes, Kind] = {
    b"\xff\xfe\x00\x00": UTF_32,
    b"\x00\x00\xfe\xff": UTF_32,
    b"\xff\xfe": UTF_16,
    b"\xfe\xff": UTF_16,
    b"\x1f\x8b": GZIP,
    b"\xfd7zXZ\x00": XZ,
    b"\x5d\x00\x00": LZMA,
    b"\x28\xb5\x2f\xfd": ZSTD,
    b"7z\xbc\xaf\x27\x1c": SEVEN_ZIP,
    b"Rar!\x1a\x07": RAR,
    b"PK\x03\x04": ZIP,
    b"PK\x05\x06": ZIP,
    b"PAR1": PARQUET,
    b"ARROW1": ARROW,
    b"\xff\xff\xff\xff": ARROW,
    b"ORC\x0a": ORC,
    b"Obj\x01": AVRO,
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": OFFICE,
    b"\x89HDF\r\n\x1a\n": HDF5,
    b"\x93NUMPY": NUMPY,
    b"SQLite format 3\x00": SQLITE,
    b"%PDF-": PDF,
    b"version https://git-lfs": LFS_POINTER,
}
"""Longer beginnings stand before those that they begin with."""

_BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_OFFICE_MEMBERS = (b"[Content_Types].xml", b"_rels/", b"xl/", b"docProps/", b"mimetype")
_PAGE = re.compile(rb"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_JSON = re.compile(rb'\{\s*["}]|\[\s*[\[{"\]\d]')
_BOM = b"\xef\xbb\xbf"


def kind_of(head: bytes) -> Kind:
    """Tell what a file is by its first bytes; what cannot be told is ``TEXT``.

    A beginning counts only if no table in UTF-8 would have it.
    """
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            is_office = kind is ZIP and head[30:].startswith(_OFFICE_MEMBERS)
            return OFFICE if is_office else kind
    if _BZIP2.match(head):
        return BZIP2
    if _PICKLE.match(head):
        return PICKLE
    if head[257:262] == b"ustar":
        return TAR
    if _is_half_zeros(head):
        return UTF_16
    return _kind_of_text(head.removeprefix(_BOM).lstrip())


def _kind_of_text(head: bytes) -> Kind:
    if _PAGE.match(head):
        return HTML
    if head.startswith(b"<?xml"):
        return XML
    return JSON if _JSON.match(head) else TEXT


def _is_half_zeros(head: bytes) -> bool:
    """Find UTF-16 without a mark of its byte order, by the zero that each ASCII letter has."""
    half = len(head) // 2
    return half > 0 and max(head[0::2].count(0), head[1::2].count(0)) > half // 2
