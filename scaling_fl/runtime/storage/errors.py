"""The error of a storage -> one sentence that says what to do and shows no secret.

The clients of object stores raise dozens of classes, wrapped in each other, and their texts may
contain addresses and keys. So our messages consist of our own words, and of the name of a class if
the class is unknown. Classes are matched by name, so no client needs to be imported.
"""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass

from scaling_fl.core.errors import UserError


class StorageError(UserError, OSError):
    """A storage refused an operation or failed; the message is one sentence."""


class NotStored(StorageError):
    """The storage works, but has no file of that name."""


class NotAFile(NotStored):
    """Something that is no file stands where a file should be."""


@dataclass(frozen=True)
class Diagnosis:
    """Why an operation failed, what the user can do, and whether a second attempt may succeed."""

    text: str
    remedy: str
    is_transient: bool = False


BUCKET = Diagnosis("the bucket does not exist", "create it or correct the address")
_CREDENTIALS = Diagnosis(
    "no credentials were found",
    "give them in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or"
    " GOOGLE_APPLICATION_CREDENTIALS)",
)
_REJECTED = Diagnosis("the credentials were rejected", "check that they are right and not expired")
_DENIED = Diagnosis("permission denied", "grant this account or user access to that place")
_UNREACHABLE = Diagnosis(
    "the storage cannot be reached",
    "check the network and the endpoint (AWS_ENDPOINT_URL or STORAGE_EMULATOR_HOST)",
    is_transient=True,
)
_BUSY = Diagnosis("the storage is overloaded or failing", "try again later", is_transient=True)
_UNTRUSTED = Diagnosis(
    "the certificate of the storage is not trusted", "check the address of the endpoint"
)
_SPACE = Diagnosis("no space is left", "free space there or choose another folder")
_READ_ONLY = Diagnosis("the file system is read-only", "mount it writable or choose another folder")
_TOO_LARGE = Diagnosis("the file is larger than the limit allows", "raise the limit (ulimit -f)")
_NO_FOLDER = Diagnosis("a file or folder of the path does not exist", "check the path")
_NOT_FOLDER = Diagnosis("a name in the path is a file, not a folder", "choose another folder")
_GONE = Diagnosis("the file system is gone", "mount it again")
_BROKEN_DISK = Diagnosis("the disk failed to read or write", "check the disk")
_NO_PACKAGE = Diagnosis("the package for this kind of address is missing", "install it")
_ADDRESS = Diagnosis(
    "the address is not valid", "use a folder, s3://bucket/path or gs://bucket/path"
)

_BY_CODE = {
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "AuthorizationHeaderMalformed": _REJECTED,
    "ExpiredToken": _REJECTED,
    "InvalidAccessKeyId": _REJECTED,
    "InvalidToken": _REJECTED,
    "SignatureDoesNotMatch": _REJECTED,
    "NoSuchBucket": BUCKET,
    "InvalidBucketName": _ADDRESS,
    "ConditionalRequestConflict": _BUSY,
    "InternalError": _BUSY,
    "OperationAborted": _BUSY,
    "RequestTimeout": _BUSY,
    "ServiceUnavailable": _BUSY,
    "SlowDown": _BUSY,
    "XMinioStorageFull": _SPACE,
    "401": _CREDENTIALS,
    "403": _DENIED,
    "507": _SPACE,
    **dict.fromkeys(("408", "429", "500", "502", "503", "504"), _BUSY),
}
_BY_CLASS = {
    "NoCredentialsError": _CREDENTIALS,
    "PartialCredentialsError": _CREDENTIALS,
    "ProfileNotFound": _CREDENTIALS,
    "DefaultCredentialsError": _CREDENTIALS,
    "CredentialRetrievalError": _REJECTED,
    "TokenRetrievalError": _REJECTED,
    "RefreshError": _REJECTED,
    "SSLError": _UNTRUSTED,
    "ClientConnectorCertificateError": _UNTRUSTED,
    "ParamValidationError": _ADDRESS,
    "InvalidURL": _ADDRESS,
    "EndpointConnectionError": _UNREACHABLE,
    "HTTPClientError": _UNREACHABLE,
    "ClientError": _UNREACHABLE,  # of aiohttp; that of botocore has a code, which comes first
    "gaierror": _UNREACHABLE,
    "ConnectionError": _UNREACHABLE,
    "RequestException": _UNREACHABLE,
    "TimeoutError": _UNREACHABLE,
    "FSTimeoutError": _UNREACHABLE,
    "ChecksumError": _BUSY,
    "PermissionError": _DENIED,
    "ImportError": _NO_PACKAGE,
}
_BY_ERRNO = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: _READ_ONLY,
    errno.EFBIG: _TOO_LARGE,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ENOENT: _NO_FOLDER,
    errno.ENOTDIR: _NOT_FOLDER,
    errno.EEXIST: _NOT_FOLDER,
    errno.EISDIR: Diagnosis("a folder stands where the file should be", "remove it"),
    errno.ENAMETOOLONG: _ADDRESS,
    errno.EIO: _BROKEN_DISK,
    errno.ENOTCONN: _GONE,
    errno.ESTALE: _GONE,
    errno.ENODEV: _GONE,
    errno.EHOSTDOWN: _GONE,
}


def explain(error: BaseException, doing: str) -> StorageError:
    """Say what failed while ``doing`` ("write x to y"), why, and what to do."""
    return error if isinstance(error, StorageError) else explain_as(diagnose(error), doing)


def explain_as(diagnosis: Diagnosis, doing: str) -> StorageError:
    return StorageError(f"could not {doing}: {diagnosis.text}; {diagnosis.remedy}.")


def diagnose(error: BaseException) -> Diagnosis:
    """Diagnose an error by itself, or by the errors that led to it."""
    # The code of a service says more than the Python class of its client.
    for look in (_by_code, _by_errno, _by_class, _by_text):
        for link in _chain(error):
            diagnosis = look(link)
            if diagnosis is not None:
                return diagnosis
    name = type(error).__name__
    return Diagnosis(f"it failed with an unexpected {name}", "check the address and the storage")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _by_code(error: BaseException) -> Diagnosis | None:
    return _BY_CODE.get(_code_of(error) or "")


def _by_errno(error: BaseException) -> Diagnosis | None:
    return _BY_ERRNO.get(error.errno or 0) if isinstance(error, OSError) else None


def _by_class(error: BaseException) -> Diagnosis | None:
    if _code_of(error) is not None:
        return None
    names = (ancestor.__name__ for ancestor in type(error).__mro__)
    return next((_BY_CLASS[name] for name in names if name in _BY_CLASS), None)


def _by_text(error: BaseException) -> Diagnosis | None:
    """Diagnose errors of gcsfs and safetensors, which only their text describes."""
    text = str(error)
    if text.startswith("Forbidden"):
        return _DENIED
    quoted = re.search(r"\(os error (\d+)\)", text)
    return _BY_ERRNO.get(int(quoted[1])) if quoted else None


def _code_of(error: BaseException) -> str | None:
    """Read the status of an HTTP error, for which clients have three different attributes."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        code = str(response.get("Error", {}).get("Code"))
        status = str(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
        return code if code in _BY_CODE else status
    for name in ("code", "status"):
        value = getattr(error, name, None)
        if isinstance(value, int | str) and str(value).isdigit():
            return str(value)
    return None


def without_credentials(url: str) -> str:
    """Remove user, password and query from an address, so that it can be shown."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    rest = rest.partition("?")[0]
    user, at, place = rest.rpartition("@")
    is_secret = at and (":" in user or "/" not in user)
    return f"{scheme}://{place if is_secret else rest}"
