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

from scaling_fl.runtime.machines.launch import GRACE_SECONDS
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

DEADLY = """
import os, signal

def merge():
    return lambda updates, round: os.kill(os.getpid(), signal.SIGKILL)
"""
SCRIPT = ROOT / "scripts"
SLOT, WORKER = "scaling_fl.commands.sweeps.slot", "scaling_fl.jobs.workers"
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
            # A kill may come between a checkpoint and the line that tells of it.
            assert saved <= event["round"] <= reached
            saved = reached = event["round"]
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
        due = number * num_runs // (len(kinds) + 1)
        wait_for(lambda due=due: num_done(shell.folder) >= due, f"{due} runs", PATIENCE_SECONDS)
        # A sweep that goes on has its command, slots and what their workers are forked from.
        wait_for(lambda: len(shell.processes()) > 3, "a run", PATIENCE_SECONDS)
        time.sleep(dice.uniform(0.1, 1.0))
        print(f"{num_done(shell.folder)} of {num_runs} runs done; killing {kind}")
        assert command.process.poll() is None, "the sweep was over before it could be killed"
        disturb(shell, command, kind, dice)
        if command.process.poll() is not None:
            command = sweep(shell)
    return command.end(expect=0, patience_seconds=PATIENCE_SECONDS)


def start_long_sweep(shell: Shell, corpus: Path) -> Command:
    """Start four runs, two at once, none of which would end soon, and wait until both train."""
    write_experiments(shell.folder, corpus, num_runs=4)
    command = sweep(shell, "with", "num_rounds=5000")
    command.wait_until(lambda: num_saved(shell.folder) > 3, "rounds of two runs")
    return command


def num_saved(folder: Path) -> int:
    return len(list(folder.glob("checkpoints/*/round-*/manifest.json")))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_leaves_all_to_be_resumed(
    shell: Shell, corpus: Path, number: int, code: int
) -> None:
    command = start_long_sweep(shell, corpus)
    command.signal(number).end(expect=code)
    assert shell.processes() == []
    assert "Traceback" not in command.out + command.err
    assert "4 runs: 4 waiting; the same command goes on." in command.err
    assert command.out.count("is interrupted") == 2
    assert {entry["failures"] for entry in entries(shell.folder)} == {0}
    for job in jobs(shell.folder).values():
        assert job.status == "INTERRUPTED"
        job.assert_whole()


def test_a_second_signal_ends_a_sweep_at_once(shell: Shell, corpus: Path) -> None:
    command = start_long_sweep(shell, corpus)
    workers = [pid for pid in shell.processes() if WORKER in command_line(pid)]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)  # so that it cannot end in good order
    command.signal(signal.SIGINT)
    time.sleep(1.0)
    assert command.process.poll() is None
    began = time.monotonic()
    command.signal(signal.SIGINT).end(expect=130)
    assert time.monotonic() - began < GRACE_SECONDS / 2
    assert shell.seconds_until_empty() < GRACE_SECONDS / 2


def test_a_run_whose_worker_always_dies_fails_and_the_others_are_finished(
    shell: Shell, corpus: Path
) -> None:
    """As where memory does not suffice; that is no reason to try for ever."""
    (shell.folder / "deadly.py").write_text(DEADLY)
    write_experiments(shell.folder, corpus, num_runs=2)
    file = shell.folder / "experiments.yaml"
    experiment = yaml.safe_load(file.read_text())
    experiment["grid"] = {"merge.method": ["deadly:merge", "mean"]}
    file.write_text(yaml.safe_dump(experiment | {"seeds": 1}))
    command = sweep(shell).end(expect=1, patience_seconds=PATIENCE_SECONDS)
    assert sorted(entry["outcome"] for entry in entries(shell.folder)) == ["done", "failed"]
    assert "failed for good: merge.method=deadly:merge" in command.out
    assert "was ended by SIGKILL" in command.out
    assert "1 of 2 runs failed" in command.error


def test_two_machines_share_a_queue_and_one_takes_over_from_the_other(
    tmp_path: Path, corpus: Path
) -> None:
    """Two groups of processes stand for machines, and a folder for the disk that they share."""
    one, other = Shell(tmp_path), Shell(tmp_path)
    write_experiments(tmp_path, corpus, num_runs=4)
    sweep(one, "--add-only").end(expect=0)
    dying, living = (serve_queue(machine) for machine in (one, other))
    wait_for(lambda: len(running_on(tmp_path)) == 2, "a run on each", PATIENCE_SECONDS)
    for pid in one.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    dying.process.wait()
    out = living.end(expect=0, patience_seconds=PATIENCE_SECONDS).out
    assert "sweep tiny, 4 runs: 4 finished" in out
    found = jobs(tmp_path)
    assert len(found) == 4
    for job in found.values():
        assert_one_chain(job.events, 4)
    assert max(entry["starts"] for entry in entries(tmp_path)) == 2
    assert one.close() + other.close() == []


def serve_queue(machine: Shell) -> Command:
    script = [sys.executable, str(SCRIPT / "run_experiments.py")]
    return machine.type(*script, "--queue", "tiny")


def running_on(folder: Path) -> set[str]:
    """Name the slots that have a run."""
    return {each["worker"] for each in entries(folder) if each["outcome"] == "running"}


def killed_at_random(
    tmp_path_factory: pytest.TempPathFactory, *, num_runs: int, kinds: list[str]
) -> int:
    """Run a sweep undisturbed and disturbed; return how many runs the latter has finished."""
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
    return num_done(shell.folder)


def test_a_sweep_that_is_killed_at_random_is_finished_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    kinds = ["parent", "slot", "worker", "all"]
    assert killed_at_random(tmp_path_factory, num_runs=6, kinds=kinds) == 6


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_twenty_four_runs_killed_five_times_are_finished_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    kinds = ["parent", "slot", "worker", "all", "all"]
    assert killed_at_random(tmp_path_factory, num_runs=24, kinds=kinds) == 24
