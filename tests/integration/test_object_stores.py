"""Jobs whose checkpoints lie in an object store: resumed from there alone, and through outages."""

import os
import re
import shutil
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import Run, settings

from scaling_fl.runtime.machines.launch import WorkerFailed
from scaling_fl.runtime.storage import RemoteStorage, open_storage
from tests.e2e.commands import Command, Shell, arguments, federation
from tests.e2e.commands import Job as JobFiles
from tests.proxy import Proxy
from tests.servers import gcs_emulator, moto_server
from tests.tiny_models import save_model

pytestmark = pytest.mark.servers

BUCKET = "bucket"
SERVERS = {"s3": moto_server, "gs": gcs_emulator}
ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST"}


OUTAGES = pytest.mark.parametrize(
    "door", ["s3", pytest.param("gs", marks=pytest.mark.nightly)], indirect=True
)
"""For tests that wait for an outage's end: the first store in every run of CI, both at night."""


@dataclass
class Store:
    """An object store behind a door; ``url`` is an empty place in its one bucket."""

    url: str
    bucket: str
    proxy: Proxy

    @property
    def files(self) -> list[str]:
        return open_storage(self.url).names()


@pytest.fixture(scope="module", params=sorted(SERVERS))
def door(request: pytest.FixtureRequest) -> Iterator[tuple[str, Proxy, dict[str, str]]]:
    scheme = request.param
    with SERVERS[scheme]() as server, Proxy(server.port) as proxy:
        environment = {
            **server.environment,
            ENDPOINTS[scheme]: f"http://127.0.0.1:{proxy.port}",
        }
        with pytest.MonkeyPatch.context() as monkeypatch:
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            storage = RemoteStorage(f"{scheme}://{BUCKET}")
            storage.fs.mkdir(storage.root)
        yield scheme, proxy, environment


@pytest.fixture
def store(
    door: tuple[str, Proxy, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    scheme, proxy, environment = door
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    yield Store(f"{scheme}://{BUCKET}/{uuid.uuid4().hex}", f"{scheme}://{BUCKET}", proxy)
    proxy.stall_after = None
    proxy.down()
    proxy.up()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    folder = tmp_path / "shell"
    folder.mkdir()
    shell = Shell(folder)
    yield shell
    assert shell.close() == []


def train(shell: Shell, corpus: Path, **changes: object) -> Command:
    settings(corpus)  # writes the texts
    quick = {"num_local_epochs": 1, "site_ids": [0], "job_name": "job"}
    return shell.train(*arguments(federation(corpus, **(quick | changes))))


def rounds_of(run: Run) -> int:
    return sum(event["event"] == "round" for event in run.events)


def notes_of(run: Run) -> list[str]:
    return [event["text"] for event in run.events if event["event"] == "note"]


def is_one_sentence(text: str) -> bool:
    return "\n" not in text and text.endswith(".") and not re.search(r"\.\s", text)


@pytest.mark.slow
def test_a_job_goes_on_from_its_store_when_everything_here_is_gone(
    store: Store, shell: Shell, corpus: Path
) -> None:
    train(shell, corpus, num_rounds=2, checkpoints_dir=store.url).end(expect=0)
    shutil.rmtree(shell.folder / "runs")
    train(shell, corpus, num_rounds=4, checkpoints_dir=store.url).end(expect=0)
    resumed = JobFiles(shell.folder / "nothing", shell.folder / "runs" / "1")
    local = train(shell, corpus, num_rounds=4, checkpoints_dir="local")
    local.end(expect=0)
    whole = JobFiles(shell.folder / "local", shell.folder / "runs" / "2")
    assert resumed.digest == whole.digest
    assert resumed.curves == whole.curves
    assert all(steps == [1, 2, 3, 4] for steps, _ in resumed.curves.values())
    assert resumed.read("info.json")["uid"] != whole.read("info.json")["uid"]
    assert len((resumed.run / "clients.csv").read_text().splitlines()) == 1 + 4 * 4


@pytest.mark.slow
def test_two_jobs_of_one_name_in_two_places_are_two_runs(
    store: Store, shell: Shell, corpus: Path
) -> None:
    for place in ("/a", "/b"):
        train(shell, corpus, num_rounds=1, checkpoints_dir=store.url + place).end(expect=0)
    runs = [JobFiles(shell.folder, shell.folder / "runs" / name) for name in ("1", "2")]
    assert runs[0].curves == runs[1].curves
    assert runs[0].read("info.json")["uid"] != runs[1].read("info.json")["uid"]
    refused = train(
        shell, corpus, num_rounds=2, checkpoints_dir=store.url + "/a", job_name="other"
    ).end(expect=2)
    assert f"checkpoints_dir={store.url}/a belongs to job_name=job, got" in refused.error
    # Being refused leaves nothing behind: neither a claim nor a part of the other job's record.
    train(shell, corpus, num_rounds=1, checkpoints_dir=store.url + "/c", job_name="other").end(
        expect=0
    )
    assert "a/claim.json" not in store.files


def test_a_bucket_that_does_not_exist_is_told_before_a_model_loads(
    store: Store, shell: Shell, corpus: Path
) -> None:
    url = f"{store.bucket}-of-nobody/job"
    command = train(shell, corpus, checkpoints_dir=url, model="no-such/model").end(expect=1)
    assert is_one_sentence(command.error)
    assert url in command.error
    assert "the bucket does not exist" in command.error
    assert "loading" not in command.out
    assert not list((shell.folder / "runs").glob("[0-9]*"))


@pytest.mark.slow
@OUTAGES
def test_an_outage_in_the_middle_is_noted_and_made_up_for(
    store: Store, corpus: Path, tmp_path: Path
) -> None:
    """The round that was due is not saved, so one of those after the outage is, due or not."""
    run = Run(tmp_path / "run", url=store.url, shared=corpus, num_rounds=9000, save_every=20)
    moments: list[str] = []
    saved_before: list[int] = []

    def saved_since(run: Run) -> list[int]:
        rounds = [row["round"] for row in run.record.checkpoints]
        return [number for number in rounds if number not in saved_before]

    def disturb(run: Run) -> None:
        if not moments and rounds_of(run) >= 1:
            store.proxy.down()
            moments.append("down")
        elif moments == ["down"] and any("was not saved" in text for text in notes_of(run)):
            saved_before.extend(row["round"] for row in run.record.checkpoints)
            store.proxy.up()
            moments.append("up")
        elif moments[-1:] == ["up"] and saved_since(run) and run.group:
            run.group.request_stop(signal.SIGTERM)
            moments.append("stop")

    run.start(tick=disturb)
    assert moments == ["down", "up", "stop"]
    [note] = [text for text in notes_of(run) if "was not saved" in text]
    missed = re.match(r"the checkpoint round-(\d{6}) was not saved", note)
    assert missed, note
    assert "those before it are intact" in note
    assert note.endswith("; the run goes on, and a later round is saved instead.")
    made_up = saved_since(run)[0]
    assert made_up > int(missed[1])
    assert f"round-{made_up:06d}/manifest.json" in store.files
    last = run.record.last_round
    assert run.results()["train.loss"][0] == list(range(1, last + 1))


@pytest.mark.slow
@OUTAGES
def test_an_outage_at_the_last_save_fails_the_run_in_one_sentence(
    store: Store, corpus: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"num_rounds": 20, "save_every": 5, "num_local_epochs": 4}
    run = Run(tmp_path / "run", url=store.url, shared=corpus, **changes)
    down: list[int] = []

    def disturb(run: Run) -> None:
        if not down and rounds_of(run) >= 15:
            down.append(rounds_of(run))
            store.proxy.down()

    with pytest.raises(WorkerFailed) as caught:
        run.start(tick=disturb)
    assert down
    message = str(caught.value)
    assert is_one_sentence(message)
    assert message.startswith("the checkpoint round-000020 was not saved, those before it are ")
    assert "the storage cannot be reached" in message
    assert caught.value.report == ""
    assert all("waiting for the storage" in line for line in run.printed)
    store.proxy.up()
    assert "round-000015/manifest.json" in store.files
    assert "round-000020/manifest.json" not in store.files
    resumed = Run(tmp_path / "run", url=store.url, shared=corpus, **changes).start()
    assert resumed.record.last_round == 20
    assert resumed.results()["train.loss"][0] == list(range(1, 21))


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [1, 72])
def test_an_upload_that_is_cut_leaves_the_checkpoint_before_it(
    store: Store, corpus: Path, tmp_path: Path, megabytes: int
) -> None:
    """72 MB go up in several parts, which the store keeps apart until the last has come."""
    words = megabytes * 2**20 // 4 // 16
    model = save_model("bert", tmp_path / "model", vocab_size=words)
    changes: dict[str, Any] = {"model": str(model), "max_seq_len": 16, "num_rounds": 3}
    changes |= {"num_clients": 2, "num_local_epochs": 2, "num_local_steps": 1}
    run = Run(tmp_path / "run", url=store.url, shared=corpus, **changes)
    saved: list[int] = []

    def kill(run: Run) -> None:
        if not saved and "round-000001/manifest.json" in store.files:
            saved.append(1)
            store.proxy.stall_after = int(0.6 * min(megabytes, 50) * 2**20)
        if saved == [1] and store.proxy.stalled.is_set() and run.group:
            saved.append(2)
            os.kill(run.group.pids[0], signal.SIGKILL)

    store.proxy.stalled.clear()
    with pytest.raises(WorkerFailed, match="was ended by SIGKILL"):
        run.start(tick=kill)
    store.proxy.stall_after = None
    store.proxy.down()
    store.proxy.up()
    cut = run.record.last_round
    assert cut >= 2
    assert f"round-{cut:06d}/manifest.json" not in store.files
    resumed = Run(tmp_path / "run", url=store.url, shared=corpus, **changes).start()
    assert [e["round"] for e in resumed.events if e["event"] == "ready"] == [cut - 1]
    assert resumed.record.last_round == 3
    assert resumed.results()["train.loss"][0] == [1, 2, 3]
    whole = Run(tmp_path / "whole", shared=corpus, **changes).start()
    assert resumed.digest == whole.digest


@pytest.mark.slow
def test_a_stop_while_the_store_is_away_is_a_stop(
    corpus: Path, tmp_path: Path, store: Store
) -> None:
    run = Run(
        tmp_path / "run",
        shared=corpus,
        url=store.url,
        num_rounds=9000,
        save_every=5000,
    )
    asked: list[int] = []

    def stop_without_store(run: Run) -> None:
        rounds = sum(event["event"] == "round" for event in run.events)
        if rounds >= 5 and not asked and run.group:
            store.proxy.down()
            run.group.request_stop(signal.SIGTERM)
            asked.append(signal.SIGTERM)

    run.start(tick=stop_without_store)
    assert run.stopped_by == signal.SIGTERM
    assert all("waiting for the storage" in line for line in run.printed)
