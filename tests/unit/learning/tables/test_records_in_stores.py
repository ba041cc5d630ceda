"""Tables in object stores are read and told apart as those on a disk are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scaling_fl.learning.tables.records import (
    columns_of,
    read_records,
    table_digest,
)
from scaling_fl.learning.text.labelled import DataError
from tests.servers import moto_server
from tests.unit.learning.tables.test_records import COMPRESSIONS, FORMATS, ROWS


@pytest.fixture(autouse=True)
def no_client_of_another_server() -> Iterator[None]:
    """Keep what fsspec remembers of one server from the tests of another one."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    yield
    S3FileSystem.clear_instance_cache()


@pytest.mark.servers
def test_tables_in_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import fsspec

    with moto_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = fsspec.filesystem("s3", use_listings_cache=False)
        store.mkdir("bucket")
        places = []
        for kind, end in (("comma", ".gz"), ("parquet", ""), ("lines", ".zst"), ("list", ".zip")):
            name, content = FORMATS[kind]
            places.append(f"s3://bucket/{name}{end}")
            store.pipe(f"bucket/{name}{end}", COMPRESSIONS[end](content))
        datasets.utils.disable_progress_bars()
        saved = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})
        saved.save_to_disk("s3://bucket/saved")
        places += ["s3://bucket/saved", "s3://bucket/saved/train"]
        for place in places:
            assert columns_of(place, "train") == list(ROWS[0])
            found = read_records(place, "train", ["text", "ward"])
            assert list(found.cells["text"]) == [row["text"] for row in ROWS]
            assert list(found.cells["ward"]) == [row["ward"] for row in ROWS]
        digests = [table_digest(place, "train") for place in places]
        assert len(set(digests)) == len(places) - 1
        with pytest.raises(DataError, match=r"^s3://bucket/absent\.csv: this file must exist"):
            columns_of("s3://bucket/absent.csv", "train")
        with pytest.raises(DataError, match=r"^s3://bucket/absent: a table must be a file"):
            columns_of("s3://bucket/absent", "train")
