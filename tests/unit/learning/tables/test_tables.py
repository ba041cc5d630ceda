"""Tables of labelled texts: what is read, and one sentence for what is wrong in them."""

import contextlib

import fsspec
import numpy as np
import pytest

from scaling_fl.learning.tasks.classification import agnews, spooky_author, yelp
from scaling_fl.learning.text.labelled import DataError

HEADER = "Class Index,Title,Description\n"


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="train.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_file


@pytest.mark.parametrize("header", ["", HEADER, "class index, title , DESCRIPTION\n"])
def test_agnews_reads_the_same_with_and_without_a_header(write, header):
    path = write(header + '3,"Stocks, up","He said ""yes""\nand left"\n"1","T","D\\band"\n')
    examples = agnews.load("train", path)
    assert examples.texts == ['He said "yes"\nand left', "D\\band"]
    assert examples.labels.tolist() == [2, 0]
    assert examples.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, "D"), ("description", "D"), ("title", "T"), ("both", "T D")],
)
def test_agnews_takes_the_text_that_was_chosen(write, text, expected):
    assert agnews.load("train", write("2,T,D\n"), text=text).texts == [expected]


def test_a_header_may_name_the_columns_in_any_order(write):
    path = write("Description,Class Index,Title\nD,4,T\n")
    examples = agnews.load("train", path)
    assert (examples.texts, examples.labels.tolist()) == (["D"], [3])


@pytest.mark.parametrize("header", ["", "stars,text\n"])
def test_yelp_reads_stars_and_unescapes_the_text(write, header):
    path = write(header + '"5","Great!\\n\\nReally \\""great\\""."\n"1","Bad, bad."\n')
    examples = yelp.load("train", path)
    assert examples.texts == ['Great!\n\nReally "great".', "Bad, bad."]
    assert examples.labels.tolist() == [4, 0]


def test_spooky_author_reads_its_header_and_names(write):
    path = write('"id","text","author"\n"id1","It was, perhaps, ","MWS"\n"id2","NA","EAP"\n')
    examples = spooky_author.load("train", path)
    assert examples.texts == ["It was, perhaps, ", "NA"]
    assert examples.labels.tolist() == [2, 0]


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_do_not_matter(write):
    examples = agnews.load("train", write(b"\xef\xbb\xbf1,T,D\r\n\r\n2,T,E\r\n\n"))
    assert examples.texts == ["D", "E"]


def test_a_very_long_text_is_read_whole(write):
    assert len(yelp.load("train", write("1," + "x" * 300_000)).texts[0]) == 300_000


PROBLEMS = [
    (agnews, "", ["the file must have rows, and is empty"]),
    (agnews, HEADER, ["must have rows below its header"]),
    (agnews, "Class Index,Title\n1,T\n", ["row 1, column 'Description'", "the header must name"]),
    (agnews, "World,T,D\n", ["row 1, column 'Class Index'", "got 'World,T,D'"]),
    (agnews, "1,T,D\n5,T,D\n", ["row 2, column 'Class Index'", "one of 1, 2, 3, 4, got '5'"]),
    (agnews, "1,T,D\nx,T,D\n", ["row 2, column 'Class Index'", "got 'x'"]),
    (agnews, HEADER + "0,T,D\n", ["row 2, column 'Class Index'", "got '0'"]),
    (agnews, '1,T,"D\n\nD"\n1,T,\n', ["row 4, column 'Description'", "must not be missing"]),
    (agnews, "1,T,D\n1,T\n", ["row 2, column 'Description'", "must have 3 columns, got 2"]),
    (agnews, "1,T,D\n1,T,D,E\n", ["row 2, column", "must have 3 columns, got 4"]),
    (agnews, b"1,T,D\n1,T,caf\xe9\n", ["row 2, column 'Description'", "must be UTF-8"]),
    (agnews, '1,T,D\n2,T,"D\n3,T,D\n', ["row 2:", "quotation marks"]),
    (
        agnews,
        "Class Index,Title,Description, description \n1,T,D,E\n",
        ["row 1, column 'Description'", "name this column once, and names it 2 times"],
    ),
    (agnews, HEADER.replace(",", ";") + "1;T;D\n", ["row 1: commas must", "semicolons do"]),
    (agnews, HEADER.replace(",", "\t") + "1\tT\tD\n", ["row 1: commas must", "tabs do"]),
    (spooky_author, "id,text,author,author\n1,T,EAP,HPL\n", ["column 'author'", "2 times"]),
    (yelp, "1,good\n6,good\n", ["row 2, column 'stars'", "one of 1, 2, 3, 4, 5, got '6'"]),
    (yelp, "1, \n", ["row 1, column 'text'", "must not be missing"]),
    (spooky_author, "id1,text,EAP\n", ["row 1, column 'author'", "id,text,author"]),
    (spooky_author, "id,text,author\na,b,c\n", ["row 2, column 'author'", "EAP, HPL, MWS"]),
]


@pytest.mark.parametrize(("task", "content", "words"), PROBLEMS)
def test_what_is_wrong_is_one_sentence_naming_file_row_and_column(write, task, content, words):
    path = write(content)
    with pytest.raises(DataError) as caught:
        task.load("train", path)
    message = str(caught.value)
    assert message.startswith(path)
    assert "\n" not in message
    assert message.encode()
    for word in words:
        assert word in message


@pytest.mark.parametrize("task", [agnews, yelp, spooky_author])
def test_a_missing_file_is_named(task, tmp_path):
    for use in (task.load, task.source_digest):
        with pytest.raises(DataError, match=r"absent\.csv: this file must exist, and does not"):
            use("train", str(tmp_path / "absent.csv"))
        with pytest.raises(DataError, match="this must be a file, and is a folder"):
            use("train", str(tmp_path))
        with pytest.raises(DataError, match="test_path must name the test file"):
            use("test", None)


def test_columns_that_nobody_reads_may_share_a_name(write):
    path = write("Class Index,Title,Description,,\n1,T,D,x,y\n")
    assert agnews.load("train", path).texts == ["D"]


def test_a_choice_that_has_no_effect_is_refused(write):
    with pytest.raises(DataError, match=r"data\.text must be one of description, title, both"):
        agnews.load("train", write("1,T,D\n"), text="body")
    with pytest.raises(DataError, match=r"data\.text has no effect on yelp"):
        yelp.load("train", write("1,T\n"), text="title")


def test_the_digest_changes_with_the_content_and_with_nothing_else(write):
    first = agnews.source_digest("train", write("1,T,D\n", "a.csv"))
    assert agnews.source_digest("train", write("1,T,D\n", "b.csv")) == first
    assert agnews.source_digest("train", write("2,T,D\n", "a.csv")) != first


def test_a_file_behind_fsspec_is_read_alike(write):
    with fsspec.open("memory://tables/train.csv", "wb") as file:
        file.write(b"1,T,caf\xc3\xa9\n")
    examples = agnews.load("train", "memory://tables/train.csv")
    assert examples.texts == ["caf\u00e9"]
    local = agnews.source_digest("train", write("1,T,caf\u00e9\n"))
    assert agnews.source_digest("train", "memory://tables/train.csv") == local


@contextlib.contextmanager
def s3_server(monkeypatch):
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield
    finally:
        server.stop()


@pytest.mark.servers
def test_s3_is_read_and_its_digest_follows_the_object(monkeypatch):
    with s3_server(monkeypatch):
        store = fsspec.filesystem("s3", skip_instance_cache=True)
        store.mkdir("bucket")
        path = "s3://bucket/train.csv"
        store.pipe_file(path, b"1,T,D\n")
        assert agnews.load("train", path).texts == ["D"]
        first = agnews.source_digest("train", path)
        assert agnews.source_digest("train", path) == first
        store.pipe_file(path, b"2,T,D\n")
        assert agnews.source_digest("train", path) != first
        with pytest.raises(DataError, match=r"s3://bucket/absent\.csv: this file must exist"):
            agnews.load("train", "s3://bucket/absent.csv")
