"""What arrives in the database is the run folder: once, whole, and under one number."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gridfs
import numpy as np
import pytest
from bson import ObjectId
from pymongo import MongoClient

from scaling_fl.runtime.tracking.mongo_delivery import MAX_CAPTURED_BYTES, MongoDelivery
from scaling_fl.runtime.tracking.run_folder import RunFolder
from tests.databases import Mongo, SecantusServer, check_delivered, secantus_server, sync, the_run
from tests.tracked_runs import announce, now, record_of, round_event, start

pytestmark = pytest.mark.servers
ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecantusServer]:
    with secantus_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def database(server: SecantusServer) -> Iterator[Mongo]:
    with server.client() as client:
        yield client[f"db{uuid.uuid4().hex}"]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return start(RunFolder(tmp_path / "runs", uid="uid-1", job_name="job"))


def contents(database: Mongo) -> dict[str, list[dict[str, Any]]]:
    names = ["runs", "metrics", "fs.files", "fs.chunks"]
    return {name: list(database[name].find().sort("_id", 1)) for name in names}


def curve(database: Mongo, name: str = "train.loss") -> dict[str, Any]:
    [found] = database.metrics.find({"name": name})
    return found


def test_a_delivery_repeated_changes_nothing(database: Mongo, folder: RunFolder) -> None:
    folder.refresh(record_of(3))
    folder.completed_event(now(), {"accuracy": 0.5})
    first = sync(folder.path, database)
    before = contents(database)
    assert sync(folder.path, database) == first == 1
    assert contents(database) == before
    check_delivered(database, folder)


def test_new_points_are_appended_and_rolled_back_points_replaced(
    database: Mongo, folder: RunFolder
) -> None:
    delivery = MongoDelivery(folder.path, database)
    record = record_of(5)
    for event in (
        round_event(6),
        {"event": "resume", "round": 2},
        round_event(3, loss=9.0),
        round_event(4, loss=float("nan")),
        {"event": "resume", "round": 1},
    ):
        folder.refresh(record)
        delivery.send()
        if record.last_round != 4:  # nan is not equal to itself
            check_delivered(database, folder)
        record.apply(event)
    folder.refresh(record)
    MongoDelivery(folder.path, database).send()
    check_delivered(database, folder)
    assert curve(database)["values"] == [1.0]


def test_a_curve_that_is_gone_is_deleted(database: Mongo, folder: RunFolder) -> None:
    record = record_of(2)
    folder.refresh(record)
    sync(folder.path, database)
    record.apply({"event": "resume", "round": 0})
    folder.refresh(record)
    sync(folder.path, database)
    assert database.metrics.count_documents({}) == 0


def test_what_a_run_had_before_it_came_to_a_new_machine_is_only_added_to(
    database: Mongo, folder: RunFolder, tmp_path: Path
) -> None:
    folder.log("of the first machine")
    folder.refresh(record_of(2))
    folder.log("printed after the journal went to the store")
    sync(folder.path, database)
    before = the_run(database)
    runs = tmp_path / "elsewhere" / "runs"
    runs.parent.mkdir()
    history = [{"start_time": "2026-11-21T08:00:00", "status": "DIED", "hostname": "a", "pid": 1}]
    anew = announce(RunFolder(runs, run_id="1", uid=folder.uid, job_name="job"))
    anew.open(history, "of the first machine\n")
    anew.log("of the second machine")
    anew.refresh(record_of(3))
    for _ in range(2):  # another process, such as that of sync_runs, comes to the same
        sync(anew.path, database)
        anew.completed_event(now(), None)
        sync(anew.path, database)
    after = the_run(database)
    assert after["_id"] == before["_id"]
    assert after["start_time"] == before["start_time"]
    assert after["captured_out"] == before["captured_out"] + "of the second machine\n"
    [first, second] = after["info"]["attempts"]
    assert first["start_time"] == before["info"]["attempts"][0]["start_time"]
    assert (first["status"], second["status"]) == ("DIED", "COMPLETED")
    assert curve(database)["steps"] == [1, 2, 3]


def test_a_database_that_knew_nothing_of_a_run_gets_all_that_its_job_knows(
    database: Mongo, tmp_path: Path
) -> None:
    history = [{"start_time": "2026-11-21T08:00:00", "status": "DIED", "hostname": "a", "pid": 1}]
    anew = announce(RunFolder(tmp_path / "runs", uid="u", job_name="job"))
    anew.open(history, "of the first machine\n")
    anew.log("of the second machine")
    for _ in range(2):
        sync(anew.path, database)
    run = the_run(database)
    assert run["captured_out"] == "of the first machine\nof the second machine\n"
    assert run["start_time"].isoformat() == "2026-11-21T08:00:00"
    assert [attempt["status"] for attempt in run["info"]["attempts"]] == ["DIED", "RUNNING"]


def test_two_deliveries_of_one_run_do_not_double_its_points(
    database: Mongo, folder: RunFolder
) -> None:
    folder.refresh(record_of(2))
    one, other = MongoDelivery(folder.path, database), MongoDelivery(folder.path, database)
    one.send()
    other.send()
    for rounds, delivery in ((4, one), (5, other), (6, one), (7, one)):
        folder.refresh(record_of(rounds))
        delivery.send()
        check_delivered(database, folder)
    assert database.runs.count_documents({}) == 1


@pytest.mark.slow
def test_a_delivery_killed_at_any_moment_is_completed_by_the_next(
    database: Mongo, server: SecantusServer, folder: RunFolder
) -> None:
    (folder.path.parent / "big.bin").write_bytes(os.urandom(3_000_000))
    folder.artifact_event("big.bin", str(folder.path.parent / "big.bin"))
    folder.refresh(record_of(400))
    code = (
        "import sys; from pathlib import Path; from pymongo import MongoClient\n"
        "from scaling_fl.runtime.tracking.mongo_delivery import MongoDelivery\n"
        "database = MongoClient(sys.argv[1])[sys.argv[2]]; database.runs.find_one()\n"
        "delivery = MongoDelivery(Path(sys.argv[3]), database)\n"
        "print('go', flush=True); delivery.send(); print('end', flush=True)\n"
    )
    arguments = [server.uri, database.name, str(folder.path)]
    # From the first command to the last takes about 0.1 s.
    for delay in np.linspace(0.0, 0.09, 5):
        with subprocess.Popen(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
    sync(folder.path, database)
    check_delivered(database, folder)


def test_a_resumed_run_stays_one_document(
    database: Mongo, folder: RunFolder, tmp_path: Path
) -> None:
    folder.refresh(record_of(2))
    folder.failed_event(now(), ["ValueError: no"])
    sync(folder.path, database)
    assert the_run(database)["fail_trace"] == ["ValueError: no"]
    resumed = start(RunFolder(tmp_path / "runs", uid="uid-1", job_name="job", run_id="1"))
    resumed.refresh(record_of(4))
    resumed.completed_event(now(), None)
    sync(resumed.path, database)
    check_delivered(database, resumed)
    assert not {"fail_trace"} & the_run(database).keys()


def test_a_run_whose_folder_was_deleted_stays_one_document(
    database: Mongo, folder: RunFolder, tmp_path: Path
) -> None:
    folder.refresh(record_of(2))
    sync(folder.path, database)
    shutil.rmtree(tmp_path / "runs")
    again = start(RunFolder(tmp_path / "runs", uid="uid-1", job_name="job", run_id="9"))
    again.refresh(record_of(3))
    sync(again.path, database)
    check_delivered(database, again)
    assert database.runs.count_documents({}) == 1


def test_a_run_inserted_twice_is_made_one_again(database: Mongo, folder: RunFolder) -> None:
    folder.refresh(record_of(2))
    sync(folder.path, database)
    late = the_run(database) | {"_id": 2}
    database.runs.insert_one(late)
    sync(folder.path, database)
    check_delivered(database, folder)
    assert database.runs.count_documents({}) == 1


def test_the_next_number_follows_the_highest_also_beside_names(
    database: Mongo, folder: RunFolder
) -> None:
    database.runs.insert_many([{"_id": 41}, {"_id": "a run with a name"}])
    folder.refresh(record_of(1))
    assert sync(folder.path, database) == 42


def test_runs_delivered_at_once_get_numbers_of_their_own(database: Mongo, tmp_path: Path) -> None:
    folders = [
        start(RunFolder(tmp_path / "runs", uid=f"uid-{i}", job_name="job")) for i in range(6)
    ]
    threads = [threading.Thread(target=sync, args=(f.path, database)) for f in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run["_id"] for run in database.runs.find()) == [1, 2, 3, 4, 5, 6]
    files = gridfs.GridFS(database)
    for run in database.runs.find():
        [[name, source]] = run["experiment"]["sources"]
        assert files.get(source).read() == (tmp_path / name).read_bytes()


def test_a_run_deleted_in_the_database_comes_back_whole(database: Mongo, folder: RunFolder) -> None:
    folder.refresh(record_of(2))
    delivery = MongoDelivery(folder.path, database)
    delivery.send()
    for name in ("runs", "metrics", "fs.files", "fs.chunks"):
        database[name].delete_many({})
    folder.heartbeat_event({}, "", now(), None)
    with pytest.raises(LookupError, match="was deleted"):
        delivery.send()
    MongoDelivery(folder.path, database).send()
    check_delivered(database, folder)


def test_the_same_content_is_stored_once_and_replaced_files_go(
    database: Mongo, folder: RunFolder, tmp_path: Path
) -> None:
    other = start(RunFolder(tmp_path / "runs", uid="uid-2", job_name="other"))
    sync(other.path, database)
    assert database["fs.files"].count_documents({}) == 1  # the source file
    for rounds in (1, 2, 3):
        folder.refresh(record_of(rounds))
        sync(folder.path, database)
    # One source for both runs, and the two tables of one of them.
    assert database["fs.files"].count_documents({}) == 3
    assert {c["files_id"] for c in database["fs.chunks"].find()} == {
        f["_id"] for f in database["fs.files"].find()
    }


def test_tables_can_wait_while_everything_else_goes(database: Mongo, folder: RunFolder) -> None:
    delivery = MongoDelivery(folder.path, database)
    folder.refresh(record_of(2))
    delivery.send(tables=False)
    assert (the_run(database)["artifacts"], len(curve(database)["steps"])) == ([], 2)
    delivery.send()
    check_delivered(database, folder)


def test_only_the_end_of_a_long_output_is_sent(database: Mongo, folder: RunFolder) -> None:
    for _ in range(30):
        folder.log("é" * 50_000)
    folder.log("the last line")
    sync(folder.path, database)
    captured = the_run(database)["captured_out"]
    assert len(captured.encode()) < MAX_CAPTURED_BYTES + 200
    assert captured.startswith("[the first ")
    assert captured.endswith("the last line\n")


def test_values_that_bson_refuses_are_delivered_in_another_form(
    database: Mongo, tmp_path: Path
) -> None:
    config = {"a.b": {"$c": [10**30, "\ud800"]}, "n": float("inf"), "np": np.float32(0.5)}
    folder = start(RunFolder(tmp_path / "runs", uid="u", job_name="j"), config=config)
    sync(folder.path, database)
    assert the_run(database)["config"] == {
        "a,b": {"@c": [str(10**30), "?"]},
        "n": None,
        "np": 0.5,
    }


def test_the_documents_are_those_of_sacreds_own_observer(
    database: Mongo, server: SecantusServer, folder: RunFolder, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sacred.observers import MongoObserver

        stock = MongoObserver(client=MongoClient(server.uri), db_name=f"{database.name}stock")
        (tmp_path / "artifact.txt").write_text("text")
        start_arguments = {"ex_info": {"name": "x", "base_dir": str(tmp_path), "sources": []}}
        rest: dict[str, Any] = {
            "command": "main",
            "host_info": {},
            "config": {},
            "meta_info": {},
            "_id": None,
        }
        stock.started_event(**start_arguments, **rest, start_time=now())
        stock.artifact_event("artifact.txt", str(tmp_path / "artifact.txt"))
        info: dict[str, Any] = {}
        points = {"steps": [1], "values": [0.5], "timestamps": [now()]}
        stock.log_metrics({"train.loss": points}, info)
        stock.heartbeat_event(info, "text", now(), {"accuracy": 0.5})
        stock.completed_event(now(), {"accuracy": 0.5})
    folder.artifact_event("artifact.txt", str(tmp_path / "artifact.txt"))
    folder.refresh(record_of(1))
    folder.completed_event(now(), {"accuracy": 0.5})
    sync(folder.path, database)
    theirs, ours = stock.runs.find_one(), the_run(database)
    assert {k: type(v) for k, v in theirs.items()} == {k: type(v) for k, v in ours.items()}
    their_curve, our_curve = stock.metrics.find_one(), curve(database)
    assert {k: type(v) for k, v in their_curve.items()} == {
        k: type(v) for k, v in our_curve.items()
    }
    assert type(our_curve["timestamps"][0]) is type(their_curve["timestamps"][0])
    assert theirs["info"]["metrics"][0].keys() == ours["info"]["metrics"][0].keys()
    assert theirs["artifacts"][0].keys() == ours["artifacts"][0].keys()
    assert database.metrics.find_one({"_id": ObjectId(ours["info"]["metrics"][0]["id"])})
    stock.runs.database.client.close()
