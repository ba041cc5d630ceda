"""The trackers that the environment names: runs are copied to each of them."""

from collections.abc import Mapping

from scaling_fl.runtime.tracking.follower import Tracker
from scaling_fl.runtime.tracking.mlflow_settings import mlflow_from_environment
from scaling_fl.runtime.tracking.mlflow_tracker import MlflowTracker
from scaling_fl.runtime.tracking.mongo_settings import SOCKET_SECONDS, settings_from_environment
from scaling_fl.runtime.tracking.mongo_tracker import MongoTracker


def named_trackers(
    environ: Mapping[str, str], *, socket_seconds: float = SOCKET_SECONDS
) -> list[Tracker]:
    """Make a tracker of each that is named; none is reached for yet.

    Raises:
        SettingsError: one is named wrongly.
    """
    found: list[Tracker] = []
    if mongo := settings_from_environment(environ):
        found.append(MongoTracker(mongo, socket_seconds=socket_seconds))
    if mlflow := mlflow_from_environment(environ):
        found.append(MlflowTracker(mlflow))
    return found
