"""The real command with an MLflow server that is there, away, killed, or started late."""

import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import settings

from tests.e2e.commands import ROOT, Command, Job, Shell, arguments, federation
from tests.mlflow_server import MlflowServer, check_delivered, client_of, mlflow_server, the_run

SYNC = [sys.executable, str(ROOT / "scripts" / "sync_runs.py")]
PASSWORD = "s3cret%2Fword"
pytestmark = [pytest.mark.servers, pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    folder = tmp_path / "shell"
    folder.mkdir()
    shell = Shell(folder)
    yield shell
    assert shell.close() == []


@pytest.fixture
def experiment() -> str:
    return f"experiment-{uuid.uuid4().hex}"


def train(shell: Shell, corpus: Path, environ: dict[str, str], **changes: object) -> Command:
    settings(corpus)  # writes the texts
    quick = {"num_local_epochs": 1, "site_ids": [0], "num_rounds": 3, "job_name": "job"}
    quick |= {"checkpoints_dir": "checkpoints"}
    return shell.train(*arguments(federation(corpus, **(quick | changes))), **environ)


def named(server: MlflowServer, experiment: str) -> dict[str, str]:
    """Name the server with a password, which it does not ask for."""
    uri = server.uri.replace("://", f"://ann:{PASSWORD}@")
    return {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": experiment}


def run_of(shell: Shell) -> Job:
    return Job(shell.folder / "checkpoints", shell.folder / "runs" / "1")


def deliver_rest(shell: Shell, command: Command, environ: dict[str, str]) -> None:
    """Do what a run asks for that did not deliver all in time, as on a busy machine."""
    if "scripts/sync_runs.py" in command.out:
        shell.type(*SYNC, **environ).end(expect=0)


def assert_no_secret(shell: Shell, *commands: Command) -> None:
    for command in commands:
        assert "s3cret" not in command.out + command.err
    for path in shell.folder.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes(), path


def test_a_server_that_is_there_holds_what_the_run_folder_holds(
    mlflow: MlflowServer, experiment: str, shell: Shell, corpus: Path
) -> None:
    environ = named(mlflow, experiment)
    command = train(shell, corpus, environ).end(expect=0)
    deliver_rest(shell, command, environ)
    job = run_of(shell)
    run = check_delivered(mlflow, experiment, job.run)
    assert run.info.status == "FINISHED"
    assert run.data.params["num_rounds"] == "3"
    assert run.data.params["merge.method"] == "mean"
    repositories = job.read("run.json")["experiment"]["repositories"]
    assert run.data.tags["mlflow.source.git.commit"] == repositories[0]["commit"]
    stored = {file.path for file in client_of(mlflow).list_artifacts(run.info.run_id)}
    assert {"partition.png", "clients.csv", "comm_log.csv", "config.json", "cout.txt"} <= stored
    assert command.err == ""
    assert "View run" not in command.out
    assert_no_secret(shell, command)
    command = train(shell, corpus, environ, num_rounds=5).end(expect=0)
    deliver_rest(shell, command, environ)
    again = check_delivered(mlflow, experiment, job.run)
    assert again.info.run_id == run.info.run_id
    assert again.data.tags["resumed_with.num_rounds"] == "5"


def test_a_job_that_is_killed_goes_on_in_its_run(
    mlflow: MlflowServer, experiment: str, shell: Shell, corpus: Path
) -> None:
    environ = named(mlflow, experiment)
    command = train(shell, corpus, environ, num_rounds=5000, save_every=1)
    command.wait_until((run_of(shell).run / "mlflow.json").exists, "a delivery")
    command.signal(signal.SIGKILL)
    shell.seconds_until_empty()
    before = the_run(client_of(mlflow), experiment)
    assert before.info.status == "RUNNING"
    shell.type(*SYNC, **environ).end(expect=0)
    assert the_run(client_of(mlflow), experiment).info.status == "KILLED"
    seen = run_of(shell).last_round
    command = train(shell, corpus, environ, num_rounds=seen + 2, save_every=1).end(expect=0)
    deliver_rest(shell, command, environ)
    run = the_run(client_of(mlflow), experiment)
    assert (run.info.run_id, run.info.status) == (before.info.run_id, "FINISHED")
    steps = {
        point.step for point in client_of(mlflow).get_metric_history(run.info.run_id, "train.loss")
    }
    assert steps == set(range(1, seen + 3))


@pytest.mark.nightly
def test_a_server_killed_and_started_again_in_a_run_loses_and_doubles_nothing(
    experiment: str, shell: Shell, corpus: Path, tmp_path: Path
) -> None:
    with mlflow_server(tmp_path) as server:
        environ = named(server, experiment)
        command = train(shell, corpus, environ, num_rounds=2000, save_every=2000)
        job = run_of(shell)
        command.wait_until((job.run / "mlflow.json").exists, "a delivery")
        server.stop()
        command.wait_until(lambda: "cannot be reached" in command.out, "the note")
        server.start()
        command.wait_until(lambda: "is back and up to date" in command.out, "its return")
        command.signal(signal.SIGTERM).end(expect=143)
        shell.type(*SYNC, **environ).end(expect=0)
        run = check_delivered(server, experiment, job.run)
        assert (run.info.status, run.data.tags["scaling_fl.status"]) == ("KILLED", "INTERRUPTED")
        assert_no_secret(shell, command)


def test_a_server_that_never_comes_costs_a_run_seconds_and_is_served_later(
    mlflow: MlflowServer, experiment: str, shell: Shell, corpus: Path
) -> None:
    away = named(MlflowServer(shell.folder), experiment)  # it is not started
    command = train(shell, corpus, away).end(expect=0)
    assert "scripts/sync_runs.py" in command.out
    sync = shell.type(*SYNC, **away).end(expect=1)
    assert "cannot be reached; nothing is lost, try again later" in sync.err
    first = shell.type(*SYNC, **named(mlflow, experiment)).end(expect=0)
    assert f"delivered to {mlflow.uri} as run" in first.out
    check_delivered(mlflow, experiment, run_of(shell).run)
    second = shell.type(*SYNC, **named(mlflow, experiment)).end(expect=0)
    assert second.out == "run 1: already delivered\n"
    assert_no_secret(shell, command, sync, first, second)


def test_a_machine_without_the_client_trains_and_says_what_installs_it(
    mlflow: MlflowServer, experiment: str, shell: Shell, corpus: Path
) -> None:
    (shell.folder / "lacking").mkdir()
    blocked = "import sys; sys.modules['mlflow'] = None"
    (shell.folder / "lacking" / "sitecustomize.py").write_text(blocked)
    environ = named(mlflow, experiment)
    lacking = environ | {"PYTHONPATH": str(shell.folder / "lacking")}
    command = train(shell, corpus, lacking, num_rounds=1).end(expect=0)
    assert "`pip install -c constraints.txt -e '.[mlflow]'`" in command.out
    assert "pip install" in shell.type(*SYNC, **lacking).end(expect=1).error
    shell.type(*SYNC, **environ).end(expect=0)
    check_delivered(mlflow, experiment, run_of(shell).run)
