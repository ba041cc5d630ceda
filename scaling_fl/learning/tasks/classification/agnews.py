"""AG News: the topic of a news item, from the Crepe CSVs with or without a header.

Source: Zhang, Zhao and LeCun, arXiv 1509.01626.
"""

from pathlib import Path

from scaling_fl.learning.tables.delimited import Format, read_rows, read_table
from scaling_fl.learning.tables.sources import file_digest, require_path
from scaling_fl.learning.task import Split
from scaling_fl.learning.text.labelled import DataError, Labelled

LABELS = ("World", "Sports", "Business", "Sci/Tech")
TEXTS = {
    "description": ("Description",),
    "title": ("Title",),
    "both": ("Title", "Description"),
}
_FORMAT = Format(
    columns=("Class Index", "Title", "Description"),
    label_column="Class Index",
    labels={str(index + 1): index for index in range(len(LABELS))},
)


def load(
    split: Split, path: str | None, *, text: str | None = None, cache_dir: Path | None = None
) -> Labelled:
    """Read a CSV with class index (1 to 4), title and description; ``text`` is the description,
    the ``title`` or ``both``.
    """
    columns = TEXTS.get(text or "description")
    if columns is None:
        known = ", ".join(TEXTS)
        raise DataError(f"data.text must be one of {known}, got {text!r}; choose one of them.")
    path = require_path("agnews", split, path)
    return read_table(path, read_rows(path), _FORMAT, columns)


def source_digest(split: Split, path: str | None, *, cache_dir: Path | None = None) -> str:
    return file_digest(require_path("agnews", split, path))
