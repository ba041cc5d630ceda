"""The real command with a database that is there, away, killed, late, or refuses the user."""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness import settings

from scaling_fl.runtime.storage import RemoteStorage
from scaling_fl.runtime.tracking.follower import LONGEST_BACKOFF_SECONDS
from tests.databases import (
    PASSWORD,
    USER,
    SecantusServer,
    check_delivered,
    secantus_server,
    the_run,
)
from tests.e2e.commands import ROOT, Command, Job, Shell, arguments, federation
from tests.servers import moto_server

SYNC = [sys.executable, str(ROOT / "scripts" / "sync_runs.py")]
pytestmark = [pytest.mark.servers, pytest.mark.e2e]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SecantusServer]:
    """A server that asks for a password, not started yet."""
    (tmp_path / "server").mkdir()
    with secantus_server(tmp_path / "server", auth=True, started=False) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    folder = tmp_path / "shell"
    folder.mkdir()
    shell = Shell(folder)
    yield shell
    assert shell.close() == []


def train(shell: Shell, corpus: Path, environ: dict[str, str], **changes: object) -> Command:
    settings(corpus)  # writes the texts
    quick = {"num_local_epochs": 1, "site_ids": [0], "num_rounds": 3, "job_name": "job"}
    quick |= {"checkpoints_dir": "checkpoints"}
    return shell.train(*arguments(federation(corpus, **(quick | changes))), **environ)


def uri(server: SecantusServer) -> dict[str, str]:
    return {"SACRED_MONGO_URI": server.uri}


def run_of(shell: Shell) -> Job:
    return Job(shell.folder / "checkpoints", shell.folder / "runs" / "1")


def stored(server: SecantusServer, shell: Shell, database: str = "sacred") -> dict[str, Any]:
    """Check that the database has all that the run folder has, once; return the run's document."""
    job = run_of(shell)
    folder = SimpleNamespace(path=job.run, run_entry=job.read("run.json"))
    with server.client() as client:
        check_delivered(client[database], folder)  # type: ignore[arg-type]
        document = the_run(client[database])
    assert document["config"] == job.read("config.json")
    assert document["captured_out"] == (job.run / "cout.txt").read_text()
    assert document["info"]["uid"] == job.read("info.json")["uid"]
    return document


def assert_no_secret(shell: Shell, *commands: Command) -> None:
    for word in (PASSWORD, "p%40ss"):
        for command in commands:
            assert word not in command.out + command.err
        for path in shell.folder.rglob("*"):
            assert not path.is_file() or word.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_database_that_is_there_holds_what_the_run_folder_holds(
    server: SecantusServer, shell: Shell, corpus: Path
) -> None:
    server.start()
    command = train(shell, corpus, uri(server)).end(expect=0)
    document = stored(server, shell)
    assert document["status"] == "COMPLETED"
    assert {"partition.png", "clients.csv", "comm_log.csv"} <= {
        artifact["name"] for artifact in document["artifacts"]
    }
    assert "round 3" in document["captured_out"].lower()
    assert command.err == ""
    assert_no_secret(shell, command)
    # A resumed run is the same run in the database too, with one curve.
    train(shell, corpus, uri(server), num_rounds=5).end(expect=0)
    again = stored(server, shell)
    assert (again["_id"], again["start_time"]) == (document["_id"], document["start_time"])
    assert all(steps == [1, 2, 3, 4, 5] for steps, _ in run_of(shell).curves.values())


@pytest.mark.slow
def test_a_job_that_goes_on_on_a_new_machine_only_adds_to_its_run(
    server: SecantusServer, shell: Shell, corpus: Path
) -> None:
    server.start()
    with moto_server() as store, pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        bucket = RemoteStorage("s3://bucket")
        bucket.fs.mkdir(bucket.root)
        place = {"checkpoints_dir": "s3://bucket/preempted"}
        train(shell, corpus, uri(server), **place).end(expect=0)
        before = stored(server, shell)
        shutil.rmtree(shell.folder / "runs")  # a pod that was preempted leaves nothing
        train(shell, corpus, uri(server), num_rounds=5, **place).end(expect=0)
    with server.client() as client:
        after = the_run(client["sacred"])
        steps = [curve["steps"] for curve in client["sacred"].metrics.find()]
    assert after["start_time"] == before["start_time"]
    assert after["captured_out"].startswith(before["captured_out"])
    assert "round 5/5" in after["captured_out"].removeprefix(before["captured_out"])
    attempts = after["info"]["attempts"]
    assert attempts[0] == before["info"]["attempts"][0]
    assert [attempt["status"] for attempt in attempts] == ["COMPLETED", "COMPLETED"]
    assert all(numbers == [1, 2, 3, 4, 5] for numbers in steps)


@pytest.mark.slow
def test_a_database_killed_and_started_again_in_a_run_loses_and_doubles_nothing(
    server: SecantusServer, shell: Shell, corpus: Path
) -> None:
    server.start()
    command = train(shell, corpus, uri(server), num_rounds=200, save_every=200)
    job = run_of(shell)
    command.wait_until(lambda: job.last_round >= 5, "round 5")
    server.stop()
    command.wait_until(lambda: "cannot be reached" in command.out, "the note")
    server.start()
    command.wait_until(lambda: "is back and up to date" in command.out, "the database's return")
    server.stop()
    seen = job.last_round
    command.wait_until(lambda: job.last_round >= min(seen + 5, 200), "five more rounds")
    server.start()
    command.end(expect=0)
    shell.type(*SYNC, **uri(server)).end(expect=0)
    stored(server, shell)
    assert all(steps == list(range(1, 201)) for steps, _ in job.curves.values())


@pytest.mark.slow
def test_a_database_that_never_comes_costs_a_run_seconds_and_is_served_later(
    server: SecantusServer, shell: Shell, corpus: Path
) -> None:
    began = time.monotonic()
    train(shell, corpus, {}, job_name="without", checkpoints_dir="without").end(expect=0)
    without = time.monotonic() - began
    began = time.monotonic()
    command = train(shell, corpus, uri(server), job_name="with", checkpoints_dir="with")
    command.end(expect=0)
    assert time.monotonic() - began < without + LONGEST_BACKOFF_SECONDS
    assert "the run goes on" in command.out
    assert "scripts/sync_runs.py" in command.out
    away = shell.type(*SYNC, **uri(server)).end(expect=1)
    assert "cannot be reached" in away.err
    server.start()
    first = shell.type(*SYNC, **uri(server)).end(expect=0)
    assert first.out.count("delivered to") == 2
    second = shell.type(*SYNC, **uri(server)).end(expect=0)
    assert second.out.count("already delivered") == 2
    everything = shell.type(*SYNC, "--all", **uri(server)).end(expect=0)
    assert everything.out.count("delivered to") == 2
    with server.client() as client:
        database = client["sacred"]
        assert [run["_id"] for run in database.runs.find()] == [1, 2]
        for run in database.runs.find():
            metrics = list(database.metrics.find({"run_id": run["_id"]}))
            names = json.loads(
                (shell.folder / "runs" / str(run["_id"]) / "metrics.json").read_text()
            )
            assert sorted(metric["name"] for metric in metrics) == sorted(names)
            assert all(metric["steps"] == [1, 2, 3] for metric in metrics)
    assert_no_secret(shell, command, away, first, second)


@pytest.mark.slow
def test_the_four_variables_of_the_original_name_a_database_too(
    server: SecantusServer, shell: Shell, corpus: Path
) -> None:
    server.start()
    environ = {"SACRED_USER": USER, "SACRED_PASSWORD": PASSWORD, "SACRED_DATABASE": "original"}
    command = train(shell, corpus, environ | {"SACRED_HOST": server.host}, num_rounds=1)
    command.end(expect=0)
    assert stored(server, shell, "original")["status"] == "COMPLETED"
    assert_no_secret(shell, command)


@pytest.mark.slow
def test_a_run_that_fails_early_shows_its_last_lines_in_the_database(
    server: SecantusServer, shell: Shell, corpus: Path
) -> None:
    server.start()
    broken = shell.folder / "broken.csv"
    broken.write_text("id,text,author\nid0,some words,NOBODY\n")
    command = train(shell, corpus, uri(server), train_path=broken).end(expect=2)
    document = stored(server, shell)
    assert document["status"] == "FAILED"
    assert command.error in document["captured_out"]
    assert "broken.csv" in document["captured_out"]
    assert "NOBODY" in "".join(document["fail_trace"])


@pytest.mark.slow
def test_a_run_that_is_stopped_is_interrupted_in_the_database(
    server: SecantusServer, shell: Shell, corpus: Path
) -> None:
    server.start()
    command = train(shell, corpus, uri(server), num_rounds=5000, save_every=5000)
    job = run_of(shell)
    command.wait_until(lambda: job.last_round >= 2, "round 2")
    command.signal(15).end(expect=143)
    document = stored(server, shell)
    assert document["status"] == "INTERRUPTED"
    assert "stop_time" in document


@pytest.mark.slow
def test_a_wrong_password_is_noted_and_stops_nothing(
    server: SecantusServer, shell: Shell, corpus: Path
) -> None:
    server.start()
    wrong = {"SACRED_MONGO_URI": f"mongodb://{USER}:not-the-one@{server.host}/"}
    command = train(shell, corpus, wrong, num_rounds=1).end(expect=0)
    assert "refuses the user or the password" in command.out
    assert "not-the-one" not in command.out + command.err
    assert run_of(shell).status == "COMPLETED"
