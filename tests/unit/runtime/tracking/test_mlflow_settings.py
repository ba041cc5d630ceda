"""The environment names the server, and no sentence about it holds a secret."""

import sys

import pytest

from scaling_fl.runtime.tracking.addresses import SettingsError
from scaling_fl.runtime.tracking.mlflow_settings import (
    MlflowSettings,
    mlflow_failure,
    mlflow_from_environment,
)
from scaling_fl.runtime.tracking.mlflow_tracker import MlflowTracker
from scaling_fl.runtime.tracking.trackers import named_trackers


def test_without_an_address_there_is_no_server() -> None:
    assert mlflow_from_environment({"MLFLOW_TRACKING_URI": " "}) is None
    assert mlflow_from_environment({"MLFLOW_EXPERIMENT_NAME": "mine"}) is None


@pytest.mark.parametrize(("named", "experiment"), [(" mine ", "mine"), ("", "scaling_fl")])
def test_the_experiment_is_named_beside_the_address(named: str, experiment: str) -> None:
    uri = "https://ann:s3cretpw@host:5000/mlflow"
    environ = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": named}
    settings = mlflow_from_environment(environ)
    assert settings == MlflowSettings(uri, experiment)
    assert settings.target == "https://host:5000/mlflow"
    assert "s3cretpw" not in repr(settings)


@pytest.mark.parametrize("password", ["p/w0rdpass", "p@w0rdpass", "p:w0rdpass"])
def test_a_password_that_would_be_read_as_a_host_is_refused(password: str) -> None:
    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI must be percent-enc") as caught:
        mlflow_from_environment({"MLFLOW_TRACKING_URI": f"http://ann:{password}@host/"})
    assert "w0rdpass" not in str(caught.value)


def test_all_that_is_named_is_served() -> None:
    both = {"SACRED_MONGO_URI": "mongodb://h/d", "MLFLOW_TRACKING_URI": "http://h:5000"}
    assert [tracker.target for tracker in named_trackers(both)] == [
        "mongodb://h/d",
        "http://h:5000",
    ]
    assert named_trackers({}) == []


def test_a_failure_is_told_without_the_secrets_of_the_address() -> None:
    settings = MlflowSettings("http://ann:s3cret%20word@host:5000", "mine")
    text = "no http://ann:s3cret%20word@host:5000/api and no 's3cret word'\n!"
    sentence = mlflow_failure(ValueError(text), settings)
    assert sentence.startswith("the MLflow server http://host:5000 did not take the record (Value")
    assert "s3cret" not in sentence
    assert "\n" not in sentence


def test_a_machine_without_the_client_is_told_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # so that it cannot be imported
    tracker = MlflowTracker(MlflowSettings("http://host:5000", "mine"))
    with pytest.raises(ImportError) as caught:
        tracker.ping()
    assert tracker.is_away(caught.value)
    assert "`pip install -c constraints.txt -e '.[mlflow]'`" in tracker.failure(caught.value)
