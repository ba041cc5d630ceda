"""What a deployment here is trusted by: a certificate of its server, keys of its nodes."""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CA, SERVER, SERVER_KEY = "ca.pem", "server.pem", "server.key"
PRIVATE, PUBLIC = "node.key", "node.key.pub"
_LIFE = timedelta(days=365)
_NAMES = ("localhost",)
_ADDRESSES = ("127.0.0.1",)


def write_certificates(folder: Path) -> None:
    """Write a server's certificate and key, and that of the authority that vouches for it.

    The key of the authority is forgotten, so that it vouches for nothing else.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    authority, authority_key = _authority()
    certificate, key = _server(authority, authority_key)
    (folder / CA).write_bytes(authority.public_bytes(Encoding.PEM))
    (folder / SERVER).write_bytes(certificate.public_bytes(Encoding.PEM))
    _write_secret(folder / SERVER_KEY, _pem(key))


def write_node_key(folder: Path) -> None:
    """Write the key pair of a node, in the form of SSH; Flower takes no curve but those of NIST."""
    from cryptography.hazmat.primitives import serialization as form

    key = _new_key()
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    _write_secret(folder / PRIVATE, secret)
    (folder / PUBLIC).write_bytes(public + b"\n")


def _new_key() -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP384R1())


def _authority() -> "tuple[x509.Certificate, EllipticCurvePrivateKey]":
    from cryptography import x509

    key = _new_key()
    name = _name("scaling_fl: a deployment on this machine")
    builder = _builder(name, name, key).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    return _signed(builder.add_extension(_usage(signs=True), critical=True), key), key


def _server(
    authority: "x509.Certificate", authority_key: "EllipticCurvePrivateKey"
) -> "tuple[x509.Certificate, EllipticCurvePrivateKey]":
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = _new_key()
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in _NAMES]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in _ADDRESSES]
    builder = _builder(_name(_NAMES[0]), authority.subject, key)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    builder = builder.add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
    )
    return _signed(builder, authority_key), key


def _name(text: str) -> "x509.Name":
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _builder(
    subject: "x509.Name", issuer: "x509.Name", key: "EllipticCurvePrivateKey"
) -> "x509.CertificateBuilder":
    from cryptography import x509

    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + _LIFE)
    identity = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(identity, critical=False)


def _usage(*, signs: bool) -> "x509.KeyUsage":
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(
    builder: "x509.CertificateBuilder", key: "EllipticCurvePrivateKey"
) -> "x509.Certificate":
    from cryptography.hazmat.primitives.hashes import SHA384

    return builder.sign(key, SHA384())


def _pem(key: "EllipticCurvePrivateKey") -> bytes:
    from cryptography.hazmat.primitives import serialization as form

    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())


def _write_secret(path: Path, content: bytes) -> None:
    """Write a file that nobody else may ever have been able to read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
