"""A sweep that is killed at random comes to what an undisturbed one comes to, each run once."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dice import seed_of_the_day
from tests.e2e.commands import (
    ROOT,
    Command,
    Job,
    Shell,
    command_line,
    federation,
    wait_for,
    write_corpus,
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SCRIPT = ROOT / "scripts"
SLOT, WORKER = "scaling_fl.commands.slot", "scaling_fl.jobs.workers"
PATIENCE_SECONDS = 240.0


def write_experiments(folder: Path, corpus: Path, *, num_runs: int) -> Path:
    """Write a sweep of tiny runs of four rounds, half of them with another learning rate."""
    overrides = {
        **federation(corpus, site_ids=[0], num_rounds=4, num_local_epochs=1, num_clients=2),
        "train_path": str(corpus / "train.csv"),
        "test_path": str(corpus / "test.csv"),
        "data.cache_dir": str(corpus / "cache"),
    }
    del overrides["learning_rate"]
    experiment = {
        "name": "tiny",
        "overrides": overrides,
        "grid": {"learning_rate": [0.001, 0.01]},
        "seeds": num_runs // 2,
    }
    file = folder / "experiments.yaml"
    file.write_text(yaml.safe_dump(experiment))
    return file


def sweep(shell: Shell, *options: str) -> Command:
    script = [sys.executable, str(SCRIPT / "run_experiments.py")]
    return shell.type(
        *script, "--config-list", "experiments.yaml", "--sites", "0,1", "--parallel", "2", *options
    )


def jobs(folder: Path) -> dict[str, Job]:
    """Find what each run of the sweep has left: its checkpoints, and its only run folder."""
    runs = {}
    for file in (folder / "runs").glob("*/config.json"):
        name = json.loads(file.read_text())["job_name"]
        assert name not in runs, f"two records of {name}"
        runs[name] = Job(folder / "checkpoints" / name, file.parent)
    return runs


def entries(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(file.read_text())["entry"] for file in folder.glob("sweeps/tiny/*/entry.json")
    ]


def num_done(folder: Path) -> int:
    return sum(entry["outcome"] == "done" for entry in entries(folder))


def assert_one_chain(events: list[dict[str, Any]], num_rounds: int) -> None:
    """Check that a journal is one run to its end: no round is begun again that was saved."""
    assert len({event["uid"] for event in events if event["event"] == "start"}) == 1
    saved = reached = 0
    ended = False
    for event in events:
        assert not ended, f"the run goes on after its end: {event}"
        if event["event"] == "resume":
            assert event["round"] == saved
            reached = saved
        elif event["event"] == "round":
            assert event["round"] == reached + 1
            reached = event["round"]
        elif event["event"] == "checkpoint":
            saved = event["round"]
        ended = event["event"] == "end" and event["status"] == "COMPLETED"
    assert ended
    assert reached == num_rounds


def assert_whole(shell: Shell, undisturbed: Path, *, num_runs: int) -> None:
    assert [entry["outcome"] for entry in entries(shell.folder)] == ["done"] * num_runs
    found, wanted = jobs(shell.folder), jobs(undisturbed)
    assert found.keys() == wanted.keys()
    assert len(found) == num_runs
    for job in found.values():
        job.assert_whole()
        assert_one_chain(job.events, 4)
        assert (job.run / "report.html").exists()
    assert {name: found[name].digest for name in found} == {
        name: wanted[name].digest for name in wanted
    }
    assert report(shell.folder) == report(undisturbed)


def report(folder: Path) -> dict[str, str]:
    """Make the report of the sweep and hash each of its files."""
    script = [sys.executable, str(SCRIPT / "report.py"), "--sweep", "tiny", "--results-only"]
    subprocess.run(script, cwd=folder, check=True, capture_output=True)
    files = [file for file in (folder / "report").rglob("*") if file.is_file()]
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def disturb(shell: Shell, command: Command, kind: str, dice: random.Random) -> None:
    """Kill something of a sweep, and wait for what ends by that."""
    running = {pid: command_line(pid) for pid in shell.processes()}
    part = {"slot": SLOT, "worker": WORKER}.get(kind, "")
    victims = [pid for pid, line in running.items() if part in line]
    if kind == "parent":
        victims = [command.pid]
    elif kind != "all":
        victims = [dice.choice(victims)] if victims else []
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if kind in ("parent", "all"):
        command.process.wait()
        shell.seconds_until_empty(60.0)


def run_disturbed(shell: Shell, *, num_runs: int, kinds: list[str], dice: random.Random) -> Command:
    """Run the sweep, killing each kind at a random moment; what has ended is typed again."""
    command = sweep(shell)
    for number, kind in enumerate(kinds):
        due = number * num_runs // len(kinds)
        wait_for(lambda due=due: num_done(shell.folder) >= due, f"{due} runs", PATIENCE_SECONDS)
        wait_for(lambda: len(shell.processes()) > 3, "a run", PATIENCE_SECONDS)
        time.sleep(dice.uniform(0.2, 2.0))
        print(f"{num_done(shell.folder)} of {num_runs} runs done; killing {kind}")
        disturb(shell, command, kind, dice)
        if command.process.poll() is not None:
            command = sweep(shell)
    return command.end(expect=0, patience_seconds=PATIENCE_SECONDS)


def check_random_kills(
    tmp_path_factory: pytest.TempPathFactory, *, num_runs: int, kinds: list[str]
) -> None:
    dice = random.Random(seed_of_the_day())
    corpus = write_corpus(tmp_path_factory.mktemp("sweep_corpus"))
    folders = [tmp_path_factory.mktemp(name) for name in ("undisturbed", "disturbed")]
    for folder in folders:
        write_experiments(folder, corpus, num_runs=num_runs)
    undisturbed, shell = (Shell(folder) for folder in folders)
    sweep(undisturbed).end(expect=0, patience_seconds=PATIENCE_SECONDS)
    assert undisturbed.close() == []
    dice.shuffle(kinds)
    last = run_disturbed(shell, num_runs=num_runs, kinds=kinds, dice=dice)
    assert f"{num_runs} finished" in last.out
    assert shell.processes() == []
    assert_whole(shell, folders[0], num_runs=num_runs)
    assert shell.close() == []


def test_a_sweep_that_is_killed_at_random_is_finished_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    kinds = ["parent", "slot", "worker", "all"]
    check_random_kills(tmp_path_factory, num_runs=6, kinds=kinds)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_twenty_four_runs_killed_five_times_are_finished_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    kinds = ["parent", "slot", "worker", "all", "all"]
    check_random_kills(tmp_path_factory, num_runs=24, kinds=kinds)
