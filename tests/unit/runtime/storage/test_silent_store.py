"""Stores that accept a connection and never answer: told within seconds, given up in bounded time.

The limits are shortened, and the clients are the real ones.
"""

import time
from collections.abc import Iterator

import pytest

from scaling_fl.core import object_stores, waiting
from scaling_fl.core.errors import UserError
from scaling_fl.learning.tables.sources import file_digest
from scaling_fl.runtime.storage import RemoteStorage, StorageError, open_storage, remote
from tests.silent_server import silent_server


@pytest.fixture(params=["s3", pytest.param("gs", marks=pytest.mark.nightly)])
def silent_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from fsspec.config import conf

    with silent_server() as address:
        for name in ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST"):
            monkeypatch.setenv(name, address)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "key")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        monkeypatch.setattr(object_stores, "ANSWER_SECONDS", 0.3)
        monkeypatch.setattr(remote, "WRITE_SECONDS", 1.0)
        monkeypatch.setattr(remote, "RETRY_SECONDS", 0.0)
        monkeypatch.setattr(remote, "SAY_AFTER_SECONDS", 0.1)
        monkeypatch.setattr(
            waiting.told_when_slow.__wrapped__, "__kwdefaults__", {"after_seconds": 0.1}
        )
        for scheme in ("s3", "s3a", "gs", "gcs"):
            monkeypatch.delitem(conf, scheme, raising=False)
        yield f"{request.param}://bucket/job"


def limit(url: str) -> float:
    return 30.0 if url.startswith("s3") else 90.0  # gcsfs pauses for 31 s between its attempts


def test_reading_and_writing_end_with_one_sentence(
    silent_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = open_storage(silent_url)
    assert isinstance(storage, RemoteStorage)
    capsys.readouterr()  # to open is to import the client, too, and not to ask the store
    for action, doing in (
        (storage.names, f"list {silent_url}"),
        (lambda: storage.write_bytes("small", b"x"), f"write small to {silent_url}"),
        (lambda: storage.create_bytes("claim", b"x"), f"write claim to {silent_url}"),
    ):
        began = time.monotonic()
        with pytest.raises(StorageError, match=f"could not {doing}: the storage cannot be") as e:
            action()
        assert time.monotonic() - began < limit(silent_url)
        assert "\n" not in str(e.value)
        assert capsys.readouterr().err == f"waiting for the storage, to {doing} (0 s)\n"


def test_reading_data_ends_with_one_sentence(
    silent_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=r"must be readable, and is not \(\w+Timeout\w+") as caught:
        file_digest(f"{silent_url}/x.csv")
    assert time.monotonic() - began < limit(silent_url)
    assert "check the path, the network and your access to it." in str(caught.value)
    assert capsys.readouterr().err == f"waiting for {silent_url}/x.csv to be read (0 s)\n"


def test_limits_of_the_users_own_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.config import conf

    own = {"config_kwargs": {"read_timeout": 99}}
    monkeypatch.setitem(conf, "s3", own)
    object_stores.limit_object_store("s3://bucket")
    assert conf["s3"] == own
