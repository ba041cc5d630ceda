"""Yelp Review Full: the stars of a review, from the Crepe CSVs without or with a header.

Source: Zhang, Zhao and LeCun, arXiv 1509.01626.
"""

from pathlib import Path

from scaling_fl.learning.tables.delimited import Format, read_rows, read_table
from scaling_fl.learning.tables.sources import file_digest, require_path
from scaling_fl.learning.task import Split
from scaling_fl.learning.text.labelled import Labelled, refuse_text_option

LABELS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
_FORMAT = Format(
    columns=("stars", "text"),
    label_column="stars",
    labels={str(index + 1): index for index in range(len(LABELS))},
)


def load(
    split: Split, path: str | None, *, text: str | None = None, cache_dir: Path | None = None
) -> Labelled:
    """Read a CSV with stars (1 to 5) and text, whose line breaks the file writes as ``\\n``."""
    refuse_text_option("yelp", text)
    path = require_path("yelp", split, path)
    return read_table(path, read_rows(path), _FORMAT, ["text"], clean=_unescape)


def source_digest(split: Split, path: str | None, *, cache_dir: Path | None = None) -> str:
    return file_digest(require_path("yelp", split, path))


def _unescape(text: str) -> str:
    # The set's description documents \n; its files also have \" beside the doubled marks.
    return text.replace("\\n", "\n").replace('\\"', '"')
