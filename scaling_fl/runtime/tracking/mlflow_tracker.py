"""An MLflow server as a place that run folders are copied to."""

from pathlib import Path
from typing import TYPE_CHECKING

from scaling_fl.runtime.tracking.mlflow_delivery import MlflowDelivery
from scaling_fl.runtime.tracking.mlflow_settings import (
    MlflowSettings,
    import_client,
    is_of_server,
    mlflow_failure,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


class MlflowTracker:
    """One server, by MLflow's own client, which is imported when something is to be sent."""

    name, marker = "the MLflow server", "mlflow.json"
    lock = "cout.txt"  # which is never replaced; the folder's lock is that of the database

    def __init__(self, settings: MlflowSettings) -> None:
        self._settings = settings
        self._client: MlflowClient | None = None
        self._delivery: MlflowDelivery | None = None

    @property
    def target(self) -> str:
        return self._settings.target

    def prepare(self) -> None:
        import_client()

    def ping(self) -> None:
        self._connected().search_experiments(max_results=1)

    def send(self, run_dir: Path, *, tables: bool) -> str:
        if self._delivery is None or self._delivery.run_dir != run_dir:
            client = self._connected()
            self._delivery = MlflowDelivery(run_dir, client, self._settings.experiment)
        return self._delivery.send(tables=tables)

    def forget(self) -> None:
        self._delivery = None

    def close(self) -> None:
        pass  # there is no connection that stays

    def failure(self, error: Exception) -> str:
        return mlflow_failure(error, self._settings)

    def is_away(self, error: Exception) -> bool:
        return is_of_server(error)

    def is_refusal(self, error: Exception) -> bool:
        from mlflow.exceptions import MlflowException

        return isinstance(error, MlflowException | OSError | LookupError | ValueError)

    def _connected(self) -> "MlflowClient":
        self._client = self._client or self._settings.connect()
        return self._client
