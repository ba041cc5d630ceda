"""Object stores for the tests of this folder: one server each, an empty place for every test."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from scaling_fl.runtime.storage import RemoteStorage
from tests.servers import Server, gcs_emulator, moto_server

BUCKET = "bucket"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    with moto_server() as server:
        _make_bucket(f"s3://{BUCKET}", server)
        yield server


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[Server]:
    with gcs_emulator() as server:
        _make_bucket(f"gs://{BUCKET}", server)
        yield server


@pytest.fixture
def s3_url(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    return _use("s3", s3_server, monkeypatch)


@pytest.fixture
def gcs_url(gcs_server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    return _use("gs", gcs_server, monkeypatch)


@pytest.fixture(
    params=[
        "local",
        "memory",
        pytest.param("s3", marks=pytest.mark.servers),
        pytest.param("gs", marks=pytest.mark.servers),
    ]
)
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty place in each kind of storage."""
    match request.param:
        case "local":
            return str(tmp_path / "job")
        case "memory":
            return f"memory://{uuid.uuid4().hex}/job"
        case "s3":
            return f"{request.getfixturevalue('s3_url')}/job"
        case _:
            return f"{request.getfixturevalue('gcs_url')}/job"


def _make_bucket(url: str, server: Server) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        storage = RemoteStorage(url)
        storage.fs.mkdir(storage.root)


def _use(scheme: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"{scheme}://{BUCKET}/{uuid.uuid4().hex}"
