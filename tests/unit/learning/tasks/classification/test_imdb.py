"""IMDb from a folder, from the tarball and through torchtext: always the same examples."""

import functools
import gzip
import hashlib
import http.server
import io
import tarfile
import threading

import pytest

from scaling_fl.learning.cache import FetchError
from scaling_fl.learning.tasks.classification import imdb
from scaling_fl.learning.text.labelled import DataError

ARCHIVE = "aclImdb_v1.tar.gz"
CAN_UNPACK = hasattr(tarfile, "data_filter")
SAFELY = {"filter": "data"} if CAN_UNPACK else {}
unpacks = pytest.mark.skipif(
    not CAN_UNPACK, reason="Python before 3.11.4 unpacks no archive safely"
)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "data" / "aclImdb"
    for split in ("train", "test"):
        for label in ("pos", "neg", "unsup"):
            (root / split / label).mkdir(parents=True)
            for number in (10, 2):
                file = root / split / label / f"{number}_7.txt"
                file.write_text(f"{split} {label} {number} é", encoding="utf-8")
    (root / "README").write_text("not a review")
    return root


@pytest.fixture
def tarball(folder, tmp_path):
    path = tmp_path / "server" / ARCHIVE
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "aclImdb")
    return path


EXPECTED = (["test neg 10 é", "test neg 2 é", "test pos 10 é", "test pos 2 é"], [0, 0, 1, 1])


def read(path, **options):
    examples = imdb.load("test", path, **options)
    return examples.texts, examples.labels.tolist()


def test_the_folder_its_parent_the_split_and_the_tarball_read_alike(folder, tarball):
    for path in (folder, folder.parent, folder / "test", tarball):
        assert read(str(path)) == EXPECTED


def test_the_digest_changes_with_the_content_of_its_split(folder, tarball):
    before = {split: imdb.source_digest(split, str(folder)) for split in ("train", "test")}
    (folder / "test" / "pos" / "2_7.txt").write_text("TEST pos 2 é", encoding="utf-8")
    assert imdb.source_digest("train", str(folder)) == before["train"]
    assert imdb.source_digest("test", str(folder)) != before["test"]
    assert imdb.source_digest("test", str(tarball)) == imdb.source_digest("train", str(tarball))


@pytest.mark.parametrize(
    ("content", "words"),
    [("", r"pos/2_7\.txt: the text must not be missing"), ("a\nb\xe9", r"row 2, byte 2: .* UTF-8")],
)
def test_a_bad_review_is_named(folder, content, words):
    (folder / "test" / "pos" / "2_7.txt").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=words):
        imdb.load("test", str(folder))


def test_what_is_no_imdb_is_refused(folder, tmp_path):
    with pytest.raises(
        DataError, match=r"there must be folders neg, pos in test or in aclImdb/test"
    ):
        imdb.load("test", str(tmp_path / "server"))
    with pytest.raises(DataError, match="must be on a local disk"):
        imdb.load("test", "s3://bucket/aclImdb")


def pack(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, text in members:
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return str(path)


def reviews(count, split="test"):
    return [
        (f"aclImdb/{split}/{label}/{n}_7.txt", f"{split} {label} {n} " + 60 * f"{n} ")
        for label in ("neg", "pos")
        for n in range(count)
    ]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tarball_that_is_cut_short_anywhere_is_refused(tmp_path, mode):
    members = [*reviews(4), ("aclImdb/README", "a last file that nobody reads")]
    path = pack(tmp_path / ARCHIVE, members, mode)
    content = (tmp_path / ARCHIVE).read_bytes()
    assert len(imdb.load("test", path)) == 8
    if mode == "w":  # beyond two blocks of zeros comes nothing but more of them
        content = content.rstrip(b"\0")
    for kept in range(600, len(content), max(1, len(content) // 150)):
        (tmp_path / ARCHIVE).write_bytes(content[:kept])
        with pytest.raises(DataError, match="must be whole, and is cut short or damaged"):
            imdb.load("test", path)


@pytest.mark.parametrize("at", [0.3, 0.5, 0.997])
def test_a_tarball_with_a_wrong_bit_is_refused(tmp_path, at):
    path = pack(tmp_path / ARCHIVE, reviews(40))
    content = bytearray((tmp_path / ARCHIVE).read_bytes())
    content[int(at * len(content))] ^= 16
    (tmp_path / ARCHIVE).write_bytes(content)
    with pytest.raises(DataError, match="must be whole, and is cut short or damaged"):
        imdb.load("test", path)


def test_a_tarball_that_lacks_reviews_is_refused(tmp_path):
    path, urls = tmp_path / ARCHIVE, ("aclImdb/test/urls_pos.txt", "http://u\n" * 4)
    assert len(imdb.load("test", pack(path, [*reviews(4), urls]))) == 8
    with pytest.raises(DataError, match=r"all 4 reviews that its test/urls_pos\.txt .* holds 3"):
        imdb.load("test", pack(path, [urls, *reviews(4)[:-1]]))
    with pytest.raises(DataError, match="the archive must hold test/pos, and does not"):
        imdb.load("test", pack(path, reviews(4)[:4]))
    with pytest.raises(DataError, match="the archive must hold train/neg, and does not"):
        imdb.load("train", pack(path, reviews(4)))


def test_a_tarball_is_read_as_the_folder_that_it_unpacks_to(tmp_path):
    hidden = [("aclImdb/test/pos/._0_7.txt", "made by macOS"), ("aclImdb/test/posts/1_7.txt", "x")]
    again = [(name, f"again {text}") for name, text in reviews(1)]
    path = pack(tmp_path / ARCHIVE, reviews(2) + hidden + again)
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "unpacked", **SAFELY)
    from_folder, from_tarball = (
        imdb.load("test", str(tmp_path / "unpacked")),
        imdb.load("test", path),
    )
    assert from_tarball.texts == from_folder.texts
    assert from_tarball.labels.tolist() == from_folder.labels.tolist()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"review,sentiment\nnice,positive\n", "text"),
        (b"PK\x03\x04", "a zip archive"),
        (gzip.compress(b"review,sentiment\n", mtime=0), "a packed file of another kind"),
        (b"", "text"),
    ],
)
def test_what_is_no_tarball_is_named(tmp_path, content, what):
    path = tmp_path / "IMDB Dataset.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"imdb reads {ARCHIVE} or .*, and this file is {what};"):
        imdb.load("train", str(path))


@pytest.fixture
def download(tarball, monkeypatch):
    """Serve the tarball where torchtext looks for it; returns the requests it got."""
    from torchtext.datasets import IMDB

    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *details):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(tarball.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(IMDB, "urls", [f"http://127.0.0.1:{server.server_port}/{ARCHIVE}"])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield requests
        server.shutdown()
        thread.join()


@unpacks
@pytest.mark.servers
def test_torchtexts_download_is_kept_as_one_file_and_done_once(
    download, tarball, monkeypatch, tmp_path, capfd
):
    md5 = hashlib.md5(tarball.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(imdb, "ARCHIVE_MD5", md5)
    cache = tmp_path / "cache"
    assert read(None, cache_dir=cache) == EXPECTED
    assert read(None, cache_dir=cache) == EXPECTED
    assert [entry.name for entry in (cache / "imdb").iterdir()] == [ARCHIVE]
    assert len(download) == 1
    assert capfd.readouterr().out == ""
    assert "extraction_filter" not in tarfile.TarFile.__dict__


@unpacks
@pytest.mark.servers
def test_another_archive_than_the_published_one_is_refused(download, tmp_path):
    with pytest.raises(FetchError, match="the imdb archive must have md5 7c2ac02c"):
        imdb.load("test", None, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache" / "imdb").exists()


@unpacks
@pytest.mark.servers
def test_an_archive_that_reaches_out_of_its_folder_writes_nothing(download, tarball, tmp_path):
    with tarfile.open(tarball, "w:gz") as archive:
        member = tarfile.TarInfo("../../../../escaped.txt")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(FetchError, match=r"torchtext could not \(OutsideDestinationError\)"):
        imdb.load("test", None, cache_dir=tmp_path / "cache")
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_python_that_unpacks_nothing_safely_downloads_nothing(monkeypatch, tmp_path):
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    with pytest.raises(FetchError, match=r"3\.11\.4 or newer .* give it as train_path"):
        imdb.load("test", None, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache" / "imdb").exists()
