"""The command of the original system, key for key, and the command that it prints for resuming."""

import csv
import json
import random
import shlex
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scaling_fl.methods.wire.payloads import encode
from tests.e2e.commands import ROOT, Job, Shell, resume_command

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TOPICS = (["treaty", "senate"], ["goal", "match"], ["shares", "profit"], ["chip", "orbit"])


def write_agnews(path: Path, *, num_rows: int, seed: int) -> Path:
    """Write news as the Crepe files have them: no header, every cell in quotation marks."""
    rng = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        for _ in range(num_rows):
            topic = rng.randrange(4)
            text = " ".join(rng.choices(TOPICS[topic], k=rng.randint(3, 8)))
            writer.writerow([topic + 1, "A title", f'{text}, "quoted"'])
    return path


def message_bytes(job: Job, round_number: int) -> int:
    """Encode the state that a client receives, and count."""
    tensors = load_file(job.checkpoints / f"round-{round_number:06d}" / "state.safetensors")
    return len(encode(torch.cat([tensor.flatten() for tensor in tensors.values()])))


def test_the_command_runs_is_recorded_and_resumes_as_it_says(shell: Shell) -> None:
    folder = shell.folder
    train = write_agnews(folder / "train.csv", num_rows=96, seed=1)
    test = write_agnews(folder / "test.csv", num_rows=40, seed=2)
    settings = [
        "site_ids=[0,0,1,1]",
        "num_rounds=2",
        "num_local_epochs=2",
        "iid_split=True",
        'task_name="agnews"',
        f'train_path="{train}"',
        f'test_path="{test}"',
        'model="tiny"',
        'job_name="20261121_080000"',
        f'checkpoints_dir="{folder}/checkpoints/20261121_080000"',
        'author="a person"',
    ]
    cache = {"SCALING_FL_CACHE": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    command = shell.train("with", *settings, **cache).end(expect=0)
    job = Job(folder / "checkpoints" / "20261121_080000", folder / "runs" / "1")

    assert "no GPU here: 4 sites on 2 CPU workers" in command.out
    check_record(job, num_rounds=2)
    assert job.read("run.json")["meta"].get("named_configs", []) == []
    assert job.read("config.json")["author"] == "a person"
    assert job.read("config.json")["job_name"] == "20261121_080000"
    closing = command.out[command.out.index("Job 20261121_080000 completed, 2 of 2 rounds.") :]
    total = 2 * 4 * message_bytes(job, 2)
    for part in (
        "validation.accuracy",
        f"({total:,} bytes)",
        "runs/1",
        "checkpoints/20261121_080000",
    ):
        assert part in closing
    assert closing in (job.run / "cout.txt").read_text()

    typed = shlex.split(resume_command(command.out))
    assert (folder / typed[0]).samefile(ROOT / "run-local.sh")
    more = [text.replace("num_rounds=2", "num_rounds=4") for text in typed[1:]]
    resumed = shell.type(sys.executable, *more, **cache).end(expect=0)
    assert "resuming after round 2 of 4" in resumed.out
    check_record(job, num_rounds=4)
    assert [path.name for path in (folder / "runs").glob("[0-9]*")] == ["1"]
    assert [a["status"] for a in job.read("info.json")["attempts"]] == ["COMPLETED", "COMPLETED"]


def check_record(job: Job, *, num_rounds: int) -> None:
    """Check everything that a completed run of four clients leaves."""
    steps = list(range(1, num_rounds + 1))
    assert job.status == "COMPLETED"
    names = {"train.loss", "train.accuracy", "validation.loss", "validation.accuracy"}
    names |= {"validation.f1_macro", "bytes.download", "bytes.upload", "bytes.total"}
    metrics = job.read("metrics.json")
    assert names | {"time.round_seconds"} <= metrics.keys()
    for name, series in metrics.items():
        assert series["steps"] == steps, name
        assert len(series["values"]) == len(series["timestamps"]) == num_rounds, name

    size = message_bytes(job, num_rounds)
    with (job.run / "clients.csv").open() as file:
        clients = list(csv.DictReader(file))
    assert [(int(row["round"]), int(row["client"])) for row in clients] == [
        (step, client) for step in steps for client in range(4)
    ]
    assert {row["download_bytes"] for row in clients} == {str(size)}
    with (job.run / "comm_log.csv").open() as file:
        log = [tuple(map(int, row.values())) for row in csv.DictReader(file)]
    both_ways = [((step, -1, c, size), (step, c, -1, size)) for step in steps for c in range(4)]
    assert sorted(log) == sorted(row for pair in both_ways for row in pair)
    assert metrics["bytes.total"]["values"] == [2 * 4 * size * step for step in steps]

    assert (job.run / "partition.png").read_bytes().startswith(b"\x89PNG")
    assert {"partition.png", "clients.csv", "comm_log.csv"} <= set(
        job.read("run.json")["artifacts"]
    )
    lines = (job.run / "cout.txt").read_text().splitlines()
    for step in steps:
        assert sum(line.startswith(f"round {step}/") for line in lines) == 1
    job.assert_whole()
    kept = sorted(path.name for path in job.checkpoints.glob("round-*"))
    assert kept == [f"round-{step:06d}" for step in steps[-3:]]
    manifest = json.loads((job.checkpoints / kept[-1] / "manifest.json").read_text())
    assert manifest["digest"] == job.digest
    assert job.events[-1]["event"] == "end"
