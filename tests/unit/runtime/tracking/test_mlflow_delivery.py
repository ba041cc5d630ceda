"""What arrives in MLflow is the run folder: once, whole, and in one run."""

import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.commands.sync import main
from scaling_fl.runtime.record.journal import fold
from scaling_fl.runtime.tracking import follower as follower_module
from scaling_fl.runtime.tracking.follower import Follower
from scaling_fl.runtime.tracking.mlflow_settings import MlflowSettings
from scaling_fl.runtime.tracking.mlflow_tracker import MlflowTracker
from scaling_fl.runtime.tracking.run_folder import RunFolder
from tests.mlflow_server import MlflowServer, check_delivered, client_of, points_of, the_run
from tests.proxy import Proxy
from tests.tracked_runs import milliseconds_of, now, record_of, round_event, start

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and try again sooner than a run does."""
    monkeypatch.setattr(follower_module, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(follower_module, "POLL_SECONDS", 0.5)


@pytest.fixture
def experiment() -> str:
    return f"experiment-{uuid.uuid4().hex}"


@pytest.fixture
def proxy(mlflow: MlflowServer) -> Iterator[Proxy]:
    """A door to the server, open."""
    with Proxy(mlflow.port) as door:
        yield door


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return start(RunFolder(tmp_path / "runs", uid="uid-1", job_name="job"))


def resumed(folder: RunFolder, **options: Any) -> RunFolder:
    """Start the job of a folder again."""
    again = RunFolder(folder.path.parent, run_id=folder.run_id, uid="uid-1", job_name="job")
    return start(again, **options)


def send(server: MlflowServer, experiment: str, folder: RunFolder) -> object:
    """Deliver as a process does that knows nothing of the server yet."""
    tracker = MlflowTracker(MlflowSettings(server.uri, experiment))
    return tracker.send(folder.path, tables=True)


def wait_until(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_a_run_has_its_settings_metrics_status_and_files(
    mlflow: MlflowServer, experiment: str, tmp_path: Path
) -> None:
    config = {
        "seed": 3,
        "author": "ann",
        "site_ids": [0, 1],
        "merge": {"method": "ties", "density": 0.2},
        "checkpoints_dir": "s3://bucket/job",
        "data": {"label": None, "text": "x" * 7000, "a key / of\nmine": True},
        "k" * 300: "long",
    }
    folder = start(RunFolder(tmp_path / "runs", uid="uid-1", job_name="job"), config=config)
    folder.log("hello")
    unfinished = round_event(4, loss=math.nan)
    folder.refresh(fold([*(round_event(n) for n in (1, 2, 3)), unfinished]))
    folder.completed_event(now(), None)
    run_id = send(mlflow, experiment, folder)
    run = check_delivered(mlflow, experiment, folder.path)
    entry = json.loads((folder.path / "run.json").read_text())
    assert (run.info.run_id, run.info.run_name) == (run_id, "job")
    assert (run.info.status, run.data.tags["scaling_fl.status"]) == ("FINISHED", "COMPLETED")
    times = [milliseconds_of(f"{entry[key]}+00:00") for key in ("start_time", "stop_time")]
    assert [run.info.start_time, run.info.end_time] == times
    params = run.data.params
    assert params.pop("data.text") == "x" * 5997 + "..."
    assert params == {
        "seed": "3",
        "author": "ann",
        "site_ids": "[0, 1]",
        "merge.method": "ties",
        "merge.density": "0.2",
        "checkpoints_dir": "s3://bucket/job",
        "data.label": "null",
        "data.a key _ of_mine": "true",
        "k" * 250: "long",
    }
    assert run.data.tags["scaling_fl.checkpoints"] == "s3://bucket/job"
    assert run.data.tags["scaling_fl.run_folder"] == str(folder.path)
    assert run.data.tags["mlflow.user"] == "ann"
    for name in ("clients.csv", "comm_log.csv", "config.json", "cout.txt"):
        stored = client_of(mlflow).download_artifacts(run_id, name, str(tmp_path))
        assert Path(stored).read_bytes() == (folder.path / name).read_bytes()


def test_a_delivery_repeated_changes_nothing(
    mlflow: MlflowServer, experiment: str, folder: RunFolder
) -> None:
    folder.refresh(fold([round_event(1), round_event(2, loss=math.nan)]))
    folder.failed_event(now(), ["ValueError: no"])
    first = send(mlflow, experiment, folder)
    before = check_delivered(mlflow, experiment, folder.path)
    assert before.info.status == "FAILED"
    assert send(mlflow, experiment, folder) == first
    after = check_delivered(mlflow, experiment, folder.path)
    assert str(after.to_dictionary()) == str(before.to_dictionary())


def test_a_resumed_job_goes_on_in_the_same_run_and_names_what_has_changed(
    mlflow: MlflowServer, experiment: str, folder: RunFolder
) -> None:
    folder.refresh(record_of(2))
    folder.interrupted_event(now(), "INTERRUPTED")
    first = send(mlflow, experiment, folder)
    assert the_run(client_of(mlflow), experiment).info.status == "KILLED"
    again = resumed(folder, config={"seed": 0, "site_ids": [0], "new": 1})
    again.refresh(record_of(4))
    assert send(mlflow, experiment, again) == first
    run = check_delivered(mlflow, experiment, again.path)
    assert run.info.status == "RUNNING"
    assert run.data.params == {"seed": "0", "site_ids": "[0, 1]", "new": "1"}
    assert run.data.tags["resumed_with.site_ids"] == "[0]"
    last = resumed(again, config={"seed": 0, "site_ids": [0, 1], "new": 1})
    last.refresh(record_of(4))
    last.completed_event(now(), None)
    send(mlflow, experiment, last)
    run = check_delivered(mlflow, experiment, last.path)
    assert (run.info.status, run.data.tags["resumed_with.site_ids"]) == ("FINISHED", "[0, 1]")


def test_a_round_computed_again_adds_a_point_only_where_its_value_differs(
    mlflow: MlflowServer, experiment: str, folder: RunFolder
) -> None:
    rounds = [round_event(n) for n in (1, 2, 3)]
    folder.refresh(fold(rounds))
    send(mlflow, experiment, folder)
    later = [round_event(2), round_event(3, loss=9.0), round_event(4)]
    later = [event | {"time": event["time"].replace("T08", "T09")} for event in later]
    folder.refresh(fold([*rounds, {"event": "resume", "round": 1}, *later]))
    for _ in range(2):
        send(mlflow, experiment, folder)
        client = client_of(mlflow)
        points = points_of(client, the_run(client, experiment))
        values = {name: [point[:2] for point in found] for name, found in points.items()}
        assert values["train.loss"] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (3, 9.0), (4, 0.25)]
        assert values["validation.accuracy"] == [(1, 0.01), (2, 0.02), (3, 0.03), (4, 0.04)]


def test_a_run_made_twice_is_made_one_again(
    mlflow: MlflowServer, experiment: str, folder: RunFolder
) -> None:
    folder.refresh(record_of(2))
    first = send(mlflow, experiment, folder)
    client = client_of(mlflow)
    number = client.get_experiment_by_name(experiment).experiment_id
    client.create_run(number, tags={"scaling_fl.uid": "uid-1"})
    assert send(mlflow, experiment, folder) == first
    check_delivered(mlflow, experiment, folder.path)


def follow(folder: RunFolder, door: Proxy, experiment: str) -> tuple[Follower, list[str]]:
    notes: list[str] = []
    settings = MlflowSettings(f"http://127.0.0.1:{door.port}", experiment)
    follower = Follower(folder, MlflowTracker(settings), note=notes.append)
    follower.start()
    return follower, notes


def test_a_server_that_is_down_at_the_start_and_cut_in_the_middle_gets_all_once(
    mlflow: MlflowServer, experiment: str, folder: RunFolder, proxy: Proxy
) -> None:
    proxy.down()
    follower, notes = follow(folder, proxy, experiment)
    folder.refresh(record_of(3))
    follower.poke()
    wait_until(lambda: notes)
    slowest = 0.0
    for num_rounds in range(4, 47):
        if num_rounds % 8 == 4:
            proxy.up()
        if num_rounds % 8 == 0:
            proxy.down()
        began = time.monotonic()
        folder.refresh(record_of(num_rounds))
        follower.poke()
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.1)
    wait_until(lambda: "is back and up to date" in notes[-1])
    folder.completed_event(now(), None)
    follower.close(60.0)
    assert check_delivered(mlflow, experiment, folder.path).info.status == "FINISHED"
    assert (
        f"the MLflow server http://127.0.0.1:{proxy.port} cannot be reached; the run goes"
        in (notes[0])
    )
    assert slowest < 1


@pytest.mark.parametrize("num_bytes", [100, 3000, 6000])
def test_a_server_that_stops_to_answer_in_the_middle_of_a_request_gets_all_once(
    mlflow: MlflowServer,
    experiment: str,
    folder: RunFolder,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    num_bytes: int,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    proxy.stall_after = num_bytes
    follower, notes = follow(folder, proxy, experiment)
    folder.refresh(record_of(30))
    follower.poke()
    assert proxy.stalled.wait(60)
    proxy.stall_after = None
    wait_until(lambda: "is back and up to date" in (notes or [""])[-1])
    folder.completed_event(now(), None)
    follower.close(60.0)
    check_delivered(mlflow, experiment, folder.path)


def test_what_a_server_that_never_came_back_missed_is_delivered_by_the_script(
    mlflow: MlflowServer,
    experiment: str,
    folder: RunFolder,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = f"http://127.0.0.1:{proxy.port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", target)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
    for name in ("SACRED_MONGO_URI", "SACRED_USER", "SACRED_PASSWORD", "SACRED_HOST"):
        monkeypatch.delenv(name, raising=False)
    runs = folder.path.parent
    follower, notes = follow(folder, proxy, experiment)
    folder.refresh(record_of(2))
    follower.poke()
    wait_until(lambda: (folder.path / "mlflow.json").exists())
    proxy.down()
    folder.refresh(record_of(5))
    folder.completed_event(now(), None)
    began = time.monotonic()
    follower.join()
    assert time.monotonic() - began < 6
    assert f"scripts/sync_runs.py --runs-dir {runs}` delivers the rest of {runs}" in notes[-1]

    assert main(runs, again=False) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"the MLflow server {target} cannot be reached; nothing is lost" in shown.err
    proxy.up()
    assert main(runs, again=False) == 0
    run = check_delivered(mlflow, experiment, folder.path)
    assert capsys.readouterr().out == f"run 1: delivered to {target} as run {run.info.run_id}\n"
    assert main(runs, again=False) == 0
    assert capsys.readouterr().out == "run 1: already delivered\n"
    assert main(runs, again=True) == 0
    check_delivered(mlflow, experiment, folder.path)


def test_a_run_whose_process_is_gone_does_not_run_for_ever(
    mlflow: MlflowServer, experiment: str, folder: RunFolder
) -> None:
    folder.refresh(record_of(2))
    path = folder.path / "info.json"
    info = json.loads(path.read_text())
    info["attempts"][-1]["pid"] = 2**22 + 1  # more than there can be
    path.write_text(json.dumps(info))
    send(mlflow, experiment, folder)
    assert check_delivered(mlflow, experiment, folder.path).info.status == "KILLED"


class Refusing(BaseHTTPRequestHandler):
    """Lets nobody in, and remembers what they came with."""

    seen: list[str | None]

    def answer(self) -> None:
        self.seen.append(self.headers["Authorization"])
        self.send_response(401)
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


def test_a_password_is_sent_and_shows_nowhere(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    Refusing.seen = []
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://ann:s3cret%2Fword@127.0.0.1:{server.server_port}"
        notes: list[str] = []
        follower = Follower(folder, MlflowTracker(MlflowSettings(uri, "mine")), note=notes.append)
        follower.start()
        wait_until(lambda: notes)
        follower.close()
        server.shutdown()
    assert "Basic YW5uOnMzY3JldC93b3Jk" in Refusing.seen  # of ann:s3cret/word
    assert "refuses the user, the password or the token; the run goes on" in notes[0]
    texts = [path.read_text() for path in folder.path.iterdir() if path.name != ".reserve"]
    assert not [text for text in [*texts, *notes, *capsys.readouterr()] if "s3cret" in text]
