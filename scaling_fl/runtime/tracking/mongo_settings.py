"""Where the database is, according to the environment, and how its failures are told."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from scaling_fl.runtime.redaction import redact_uri
from scaling_fl.runtime.tracking.addresses import SettingsError, check_user_info, clean_text

if TYPE_CHECKING:
    from pymongo import MongoClient

ORIGINAL_VARIABLES = ("SACRED_USER", "SACRED_PASSWORD", "SACRED_HOST", "SACRED_DATABASE")
DEFAULT_DATABASE = "sacred"
SERVER_SELECTION_SECONDS = 2.0
SOCKET_SECONDS = 3.0


@dataclass(frozen=True)
class MongoSettings:
    """Where the database is; only ``target`` may be shown, the address may hold a password."""

    uri: str = field(repr=False)
    database: str

    @property
    def target(self) -> str:
        scheme, _, rest = redact_uri(self.uri).partition("://")
        return f"{scheme}://{rest.partition('/')[0]}/{self.database}"

    def connect(self, *, socket_seconds: float = SOCKET_SECONDS) -> "MongoClient[dict[str, Any]]":
        """Make a client that gives up within seconds; nothing is sent yet."""
        from pymongo import MongoClient
        from pymongo.errors import ConfigurationError, ConnectionFailure

        # It reports every wait for a server at level INFO, which is what Sacred shows.
        logging.getLogger("pymongo").setLevel(logging.ERROR)
        try:
            return MongoClient(
                self.uri,
                serverSelectionTimeoutMS=int(1000 * SERVER_SELECTION_SECONDS),
                connectTimeoutMS=int(1000 * SOCKET_SECONDS),
                socketTimeoutMS=int(1000 * socket_seconds),
            )
        except (ConfigurationError, ValueError) as error:
            # Its message may quote a part of the password; of the name service's it does not.
            if "DNS" in str(error):
                raise ConnectionFailure(f"the name of {self.target} is not known") from None
            raise SettingsError(
                f"the address of the database {self.target} cannot be used (check its hosts, port "
                f"and options)"
            ) from None


def settings_from_environment(environ: Mapping[str, str]) -> MongoSettings | None:
    """Read SACRED_MONGO_URI, or SACRED_USER, SACRED_PASSWORD, SACRED_HOST and SACRED_DATABASE.

    A host with a port is a server of its own; one without is looked up as a cluster (mongodb+srv).

    Raises:
        SettingsError: the address is not one of MongoDB, or some of the four are missing.
    """
    given = {name: environ.get(name, "").strip() for name in ORIGINAL_VARIABLES}
    if uri := environ.get("SACRED_MONGO_URI", "").strip():
        return _from_uri(uri, given["SACRED_DATABASE"] or DEFAULT_DATABASE)
    return _from_parts(given) if any(given.values()) else None


def _from_uri(uri: str, database: str) -> MongoSettings:
    if not uri.startswith(("mongodb://", "mongodb+srv://")):
        raise SettingsError(
            "SACRED_MONGO_URI must start with mongodb:// or mongodb+srv://, got "
            f"{redact_uri(uri)!r}; give the whole address."
        )
    check_user_info("SACRED_MONGO_URI", uri)
    path = redact_uri(uri).partition("://")[2].partition("/")[2]
    return MongoSettings(uri, path or database)


def _from_parts(given: Mapping[str, str]) -> MongoSettings:
    if missing := [name for name, value in given.items() if not value]:
        raise SettingsError(
            f"SACRED_USER, SACRED_PASSWORD, SACRED_HOST and SACRED_DATABASE belong together, but "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set; set all "
            f"four, or SACRED_MONGO_URI alone."
        )
    user, password, host, database = (given[name] for name in ORIGINAL_VARIABLES)
    scheme = "mongodb" if ":" in host else "mongodb+srv"
    return MongoSettings(f"{scheme}://{quote_plus(user)}:{quote_plus(password)}@{host}/", database)


def failure_sentence(error: Exception, settings: MongoSettings) -> str:
    """Say in one sentence why the database did not take something, without any secret."""
    from pymongo.errors import ConnectionFailure, OperationFailure

    if isinstance(error, SettingsError):
        return str(error)
    code = error.code if isinstance(error, OperationFailure) else None
    where = f"the database {settings.target}"
    if code in (8000, 18):
        return f"{where} refuses the user or the password"
    if code == 13:
        return f"{where} does not let this user write"
    if isinstance(error, ConnectionFailure):
        return f"{where} cannot be reached"
    text = clean_text(error, settings.uri)
    return f"{where} did not take the record ({type(error).__name__}: {text})"
