"""Secrets of Google's Secret Manager, for platforms whose variables cannot refer to secrets.

A variable that holds ``sm://projects/P/secrets/N/versions/V`` gets that version's value when the
program starts, read with the credentials that the machine has.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from scaling_fl.core.errors import UserError
from scaling_fl.core.waiting import told_when_slow

SCHEME = "sm://"
ENDPOINT = "https://secretmanager.googleapis.com"
TIMEOUT_SECONDS = 10.0
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_VERSION = re.compile(r"projects/[^/?#\s]+/secrets/[^/?#\s]+/versions/[^/?#:\s]+")
_REMEDIES = {
    403: "give its service account the role roles/secretmanager.secretAccessor",
    404: "correct the project, the name or the version",
}


class SecretUnavailable(UserError):
    """A secret that cannot be read; the text names the variable, and never holds a secret."""


def resolve_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the value of every variable that refers to a secret.

    ``SECRET_MANAGER_ENDPOINT`` names another server, which is then asked without credentials.

    Raises:
        SecretUnavailable: when one of them cannot be read.
    """
    references = {name: value for name, value in environ.items() if value.startswith(SCHEME)}
    if not references:
        return {}
    for variable, reference in references.items():
        if not _VERSION.fullmatch(reference.removeprefix(SCHEME)):
            raise SecretUnavailable(
                f"{variable} must be {SCHEME}projects/PROJECT/secrets/NAME/versions/VERSION, got "
                f"{reference!r}; correct it, such as with versions/latest."
            )
    endpoint = environ.get("SECRET_MANAGER_ENDPOINT")
    server = (endpoint or ENDPOINT).rstrip("/")
    with told_when_slow(f"{server} to give {', '.join(references)}"):
        session = _open_session(next(iter(references)), is_anonymous=bool(endpoint))
        return {name: _read(session, server, name, value) for name, value in references.items()}


def _open_session(variable: str, *, is_anonymous: bool) -> Any:
    # Late: only a start that refers to a secret pays for these.
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import AuthorizedSession

    try:
        credentials: Any = (
            AnonymousCredentials() if is_anonymous else google.auth.default(scopes=[_SCOPE])[0]
        )
    except GoogleAuthError:
        # Not chained: its text is a paragraph.
        raise SecretUnavailable(
            f"{variable} refers to Secret Manager, which needs Google's credentials, but there are "
            "none; give the machine a service account or set GOOGLE_APPLICATION_CREDENTIALS."
        ) from None
    return AuthorizedSession(credentials)


def _read(session: Any, server: str, variable: str, reference: str) -> str:
    from google.auth.exceptions import GoogleAuthError
    from requests import RequestException

    version = reference.removeprefix(SCHEME)
    try:
        answer = session.get(f"{server}/v1/{version}:access", timeout=TIMEOUT_SECONDS)
    except (RequestException, GoogleAuthError) as error:
        raise SecretUnavailable(
            f"{variable} refers to {version}, but {server} did not answer "
            f"({type(error).__name__}); check the network and the credentials."
        ) from None
    if answer.status_code != 200:
        remedy = _REMEDIES.get(answer.status_code, "try again later")
        raise SecretUnavailable(
            f"{variable} refers to {version}, but {server} answered {answer.status_code} "
            f"({answer.reason}); {remedy}."
        )
    try:
        text = base64.b64decode(answer.json()["payload"]["data"], validate=True).decode()
    except (ValueError, LookupError, TypeError, binascii.Error):
        text = "\0"
    if "\0" in text:  # Not chained: the text of the error may hold the secret.
        raise SecretUnavailable(
            f"{variable} refers to {version}, which must hold text; store the value as text."
        )
    return text
