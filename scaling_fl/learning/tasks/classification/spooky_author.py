"""Spooky author identification: who wrote a sentence, Poe, Lovecraft or Shelley."""

from pathlib import Path

from scaling_fl.learning.tables.delimited import Format, read_rows, read_table
from scaling_fl.learning.tables.sources import file_digest, require_path
from scaling_fl.learning.task import Split
from scaling_fl.learning.text.labelled import Labelled, refuse_text_option

LABELS = ("EAP", "HPL", "MWS")
_FORMAT = Format(
    columns=("id", "text", "author"),
    label_column="author",
    labels={name: index for index, name in enumerate(LABELS)},
    header="required",
)


def load(
    split: Split, path: str | None, *, text: str | None = None, cache_dir: Path | None = None
) -> Labelled:
    """Read a CSV with the header ``id,text,author``, as ``split_data.py`` writes it."""
    refuse_text_option("spooky_author", text)
    path = require_path("spooky_author", split, path)
    return read_table(path, read_rows(path), _FORMAT, ["text"])


def source_digest(split: Split, path: str | None, *, cache_dir: Path | None = None) -> str:
    return file_digest(require_path("spooky_author", split, path))
