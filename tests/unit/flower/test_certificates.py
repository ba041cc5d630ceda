"""Certificates of a deployment vouch for its server alone; its keys are what Flower takes."""

import ssl
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    load_ssh_private_key,
    load_ssh_public_key,
)

from scaling_fl.flower.certificates import (
    CA,
    PRIVATE,
    PUBLIC,
    SERVER,
    SERVER_KEY,
    write_certificates,
    write_node_key,
)


def greet(served: Path, trusted: Path, name: str) -> None:
    """Have a client and a server in this process agree on TLS, or fail to."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(served / SERVER, served / SERVER_KEY)
    client_side = ssl.create_default_context(cafile=trusted / CA)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(down, up, server_hostname=name)
    server = server_side.wrap_bio(up, down, server_side=True)
    steps: list[Callable[[], None]] = [client.do_handshake, server.do_handshake] * 3
    for step in steps:
        with suppress(ssl.SSLWantReadError):
            step()
    assert client.version() is not None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_certificates(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_the_server_is_believed_by_who_has_its_authority(folder: Path, name: str) -> None:
    greet(folder, folder, name)
    assert (folder / SERVER).exists()


def test_the_server_is_believed_under_no_other_name(folder: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"example\.org"):
        greet(folder, folder, "example.org")


def test_the_server_is_believed_by_nobody_else(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_certificates(other)
    with pytest.raises(ssl.SSLCertVerificationError):
        greet(folder, other, "127.0.0.1")


def test_the_key_of_the_authority_is_kept_nowhere(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {CA, SERVER, SERVER_KEY}


def test_a_node_has_a_key_of_a_curve_that_flower_takes(tmp_path: Path) -> None:
    write_node_key(tmp_path)
    private = load_ssh_private_key((tmp_path / PRIVATE).read_bytes(), password=None)
    public = load_ssh_public_key((tmp_path / PUBLIC).read_bytes())
    assert isinstance(private, EllipticCurvePrivateKey)
    assert isinstance(public, EllipticCurvePublicKey)
    assert isinstance(private.curve, SECP384R1)
    assert private.public_key() == public


def test_only_the_owner_may_read_keys(folder: Path) -> None:
    write_node_key(folder)
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in (SERVER_KEY, PRIVATE)}
    assert modes == {SERVER_KEY: 0o600, PRIVATE: 0o600}
