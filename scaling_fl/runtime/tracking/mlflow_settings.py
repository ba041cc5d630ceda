"""Where the MLflow server is, according to the environment, and how its failures are told."""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from scaling_fl.runtime.redaction import redact_uri
from scaling_fl.runtime.tracking.addresses import check_user_info, clean_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_EXPERIMENT = "scaling_fl"
# Left alone, the client tries for minutes, reports its use to its makers and prints addresses.
CLIENT_OPTIONS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables of the client that are set unless the environment sets them; the timeout in seconds."""
_UNAUTHORISED, _TOO_MANY, _SERVER_ERRORS = (401, 403), 429, 500


@dataclass(frozen=True)
class MlflowSettings:
    """Where the server is; only ``target`` may be shown, the address may hold a password."""

    uri: str = field(repr=False)
    experiment: str

    @property
    def target(self) -> str:
        return redact_uri(self.uri)

    def connect(self) -> "MlflowClient":
        """Make a client; nothing is sent yet.

        Raises:
            ModuleNotFoundError: the client is not installed.
        """
        import_client()
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)


def import_client() -> None:
    """Import MLflow's client, which takes seconds, and keep it quiet.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    for name, value in CLIENT_OPTIONS.items():
        os.environ.setdefault(name, value)
    import_module("mlflow")
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)


def mlflow_from_environment(environ: Mapping[str, str]) -> MlflowSettings | None:
    """Read MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME; the client reads what else there is.

    Raises:
        SettingsError: the address cannot be read.
    """
    uri = environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return None
    check_user_info("MLFLOW_TRACKING_URI", uri)
    experiment = environ.get("MLFLOW_EXPERIMENT_NAME", "").strip()
    return MlflowSettings(uri, experiment or DEFAULT_EXPERIMENT)


def mlflow_failure(error: Exception, settings: MlflowSettings) -> str:
    """Say in one sentence why the server did not take something, without any secret."""
    where = f"the MLflow server {settings.target}"
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{where} needs the package mlflow-skinny, which is not installed (`pip install -c "
            "constraints.txt -e '.[mlflow]'` in the folder of the project installs it)"
        )
    if is_unreachable(error):
        return f"{where} cannot be reached"
    if _status_of(error) in _UNAUTHORISED:
        return f"{where} refuses the user, the password or the token"
    text = clean_text(error, settings.uri)
    return f"{where} did not take the record ({type(error).__name__}: {text})"


def is_unreachable(error: Exception) -> bool:
    """Tell whether a request got no answer."""
    from requests import RequestException

    return any(isinstance(cause, RequestException) for cause in _causes(error))


def is_of_server(error: Exception) -> bool:
    """Tell whether the server would take nothing at all: it is away, busy, or lets nobody in."""
    status = _status_of(error)
    refuses_all = status in (*_UNAUTHORISED, _TOO_MANY) or status >= _SERVER_ERRORS
    return isinstance(error, ModuleNotFoundError) or is_unreachable(error) or refuses_all


def _status_of(error: Exception) -> int:
    """Return the HTTP status that the server answered with; 0 when it is no answer."""
    found = getattr(error, "get_http_status_code", None)
    return int(found()) if found else 0


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
