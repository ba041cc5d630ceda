"""Runs that nobody has trained, written as real ones are: a journal and a run folder of each."""

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling_fl.config import read_config
from scaling_fl.config.typed import merged
from scaling_fl.core.json_text import json_text
from scaling_fl.runtime.record.journal import JOURNAL, fold
from scaling_fl.runtime.tracking.run_files import metrics_json, tables

Settings = dict[str, Any]
LABELS = ("computers", "leisure", "science", "society")
MOMENT = "2026-11-21T{:02}:{:02}:{:02}.000+00:00"
BASE: Settings = {
    "task_name": "20newsgroups_topics",
    "model": "tiny",
    "device": "cpu",
    "num_threads": 1,
    "num_clients": 20,
    "clients_per_round": 10,
    "partition": {"kind": "dirichlet_by_client", "alpha": 0.1},
}
PAYLOAD = 174_444


@dataclass(frozen=True, kw_only=True)
class MadeUp:
    """A run to be made up."""

    settings: Settings
    top: float = 0.8
    """The accuracy that it comes close to."""
    status: str | None = "COMPLETED"
    """How it ended; None: its process is gone, and has not said so."""
    message: str = ""
    finished: int | None = None
    """How many rounds it finished; None: all."""
    payload: int = PAYLOAD
    """Bytes of one update."""
    test: str | None = "f3a1c05b77de"
    """The hash of its test examples; None: an older version did not record it."""
    is_silent: bool = False
    """Whether it says nothing of its clients, as runs with noise do."""
    notes: tuple[str, ...] = ()
    epsilon: float | None = None
    """What a round spends."""
    stopped_by: str | None = None
    """The rule that ended it after its last finished round."""
    failing: int | None = None
    """The client whose every third update is left out."""


def write(
    runs: Iterable[MadeUp],
    folder: Path,
    *,
    jobs: Sequence[str] | None = None,
    sites: Sequence[int] = (0,),
) -> None:
    """Write runs 1, 2 and so on below ``runs``, with their journals below ``checkpoints``.

    ``jobs`` names them, and ``sites`` is where they were.
    """
    for number, made_up in enumerate(runs, start=1):
        job = jobs[number - 1] if jobs else f"made-up-{number}"
        _write(made_up, number, folder, job, sites)


def _write(made_up: MadeUp, number: int, folder: Path, job: str, sites: Sequence[int]) -> None:
    rng = random.Random(json.dumps(made_up.settings, sort_keys=True))
    checkpoints = (folder / "checkpoints" / job).absolute()
    named = {"job_name": job, "checkpoints_dir": str(checkpoints)}
    settings = merged(BASE | {"site_ids": list(sites)}, made_up.settings)
    config = read_config(settings | named).model_dump(mode="json")
    events = [_start(number, job), *_events(made_up, config, rng)]
    checkpoints.mkdir(parents=True)
    (checkpoints / JOURNAL).write_text("".join(f"{json_text(event)}\n" for event in events))
    record, run = fold(events), folder / "runs" / str(number)
    run.mkdir(parents=True)
    info = {
        "uid": record.uid, "job_name": job, "attempts": record.history, "notes": record.notes,
        "last_round": record.last_round, "partition": record.partition,
        "baseline": record.baseline, "failures": record.failures, "checkpoints": [],
        "stopped_by": record.stopped_by,
    }  # fmt: skip
    entry = {
        "status": made_up.status or "RUNNING",
        "heartbeat": record.last_event,
        "experiment": {
            "repositories": [
                {"commit": "96e987a189672b37fe3072630b50319ce78d7c0f", "dirty": False}
            ],
            "sources": [[f"scaling_fl/{n}.py", f"_sources/{n}_{n:032x}.py"] for n in range(250)],
            "dependencies": ["torch==2.13.0", "transformers==5.23.0"],
        },
    }
    for name, value in (("config", config), ("info", info), ("run", entry)):
        (run / f"{name}.json").write_text(json_text(value, indent=2))
    (run / "metrics.json").write_bytes(metrics_json(record.metrics))
    for name, table in tables().items():
        (run / name).write_bytes(table.render(record.clients))


def _start(number: int, job: str) -> dict[str, Any]:
    return {
        "time": MOMENT.format(8, 0, 0), "event": "start", "uid": f"{number:032x}", "job_name": job,
        "run_id": str(number), "host": "made-up", "pid": 2**22 + 1, "resume_command": "none",
    }  # fmt: skip


def _events(
    made_up: MadeUp, config: Mapping[str, Any], rng: random.Random
) -> Iterable[dict[str, Any]]:
    clients, num_rounds = config["num_clients"], config["num_rounds"]
    draw = random.Random(config["data_seed"])
    histograms = [[int(draw.expovariate(0.02)) for _ in LABELS] for _ in range(clients)]
    if not made_up.is_silent:
        yield {
            "time": MOMENT.format(8, 0, 1), "event": "partition", "label_names": LABELS,
            "histograms": histograms, "entropies": [1.0] * clients,
            "examples": "0d4f9be1a2c3", "owners": f"{config['data_seed']:012x}",
        }  # fmt: skip
    yield {
        "time": MOMENT.format(8, 0, 1), "event": "resume", "round": 0, "num_rounds": num_rounds,
        "baseline": {"metrics": {"accuracy": 0.25, "loss": math.log(4)}, "num_examples": 400,
                     "examples": made_up.test},
    }  # fmt: skip
    for text in made_up.notes:
        yield {"time": MOMENT.format(8, 0, 1), "event": "note", "level": "warning", "text": text}
    finished = num_rounds if made_up.finished is None else made_up.finished
    for number in range(1, finished + 1):
        event = _round(number, made_up, config, histograms, rng)
        ended = {"stopped_by": made_up.stopped_by} if number == finished else {}
        yield event | (ended if made_up.stopped_by else {})
    if made_up.status:
        yield {
            "time": MOMENT.format(10, 0, 0), "event": "end", "status": made_up.status,
            "message": made_up.message,
        }  # fmt: skip


def _round(
    number: int,
    made_up: MadeUp,
    config: Mapping[str, Any],
    histograms: list[list[int]],
    rng: random.Random,
) -> dict[str, Any]:
    drawn = sorted(rng.sample(range(config["num_clients"]), config["clients_per_round"]))
    accuracy = 0.25 + (made_up.top - 0.25) * (1 - math.exp(-number / 15)) + rng.gauss(0, 0.004)
    rows = [
        {
            "round": number, "client": client, "tier": 0, "num_examples": sum(histograms[client]),
            "update_norm": 0.5 + rng.random(), "download_bytes": made_up.payload,
            "upload_bytes": made_up.payload, "seconds": 0.1 + rng.random() / 50,
            "loss": 2 - 2 * accuracy + rng.random() / 5, "accuracy": accuracy - rng.random() / 10,
        }
        for client in drawn
    ]  # fmt: skip
    sent = float(made_up.payload * len(drawn))
    metrics = {
        "train.loss": 2 - 2 * accuracy, "train.accuracy": accuracy, "update.norm_mean": 1.0,
        "update.drift": 0.3 + rng.random() / 10, "bytes.download": sent, "bytes.upload": sent,
        "bytes.total": 2 * sent * number, "bytes.plain": 2.0 * PAYLOAD * len(drawn),
        "time.train_seconds": 1.0, "time.exchange_seconds": 0.01,
        "time.round_seconds": 1.2 + rng.random() / 10,
    }  # fmt: skip
    if number % config["eval_every"] == 0:
        metrics |= {
            "validation.accuracy": accuracy, "validation.f1_macro": accuracy - 0.02,
            "validation.loss": 1.9 - 2 * accuracy,
        }  # fmt: skip
    if made_up.epsilon:
        metrics["privacy.epsilon"] = made_up.epsilon * math.sqrt(number)
    failing = made_up.failing in drawn and number % 3 == 0
    rows = [] if made_up.is_silent else rows
    failures = [{"client": made_up.failing, "reason": "the update is not finite"}] * failing
    minutes, seconds = divmod(2 * number, 60)
    return {
        "time": MOMENT.format(8 + minutes // 60, minutes % 60, seconds), "event": "round",
        "round": number, "metrics": metrics, "clients": rows, "failures": failures,
        "digest": f"{rng.getrandbits(256):064x}",
    }  # fmt: skip


def grid(num_runs: int, num_rounds: int, *, seeds: int = 3) -> Iterable[MadeUp]:
    """Make up a grid of merges and learning rates over seeds, of at least so many runs."""
    methods = ("mean", "ties", "dare", "median", "trimmed_mean")
    rates = [round(0.001 * 1.3**step, 6) for step in range(-(-num_runs // (seeds * len(methods))))]
    points = [(rate, method) for rate in rates for method in methods]
    for index in range(num_runs):
        (rate, method), seed = points[index // seeds], index % seeds + 1
        top = 0.6 + 0.04 * math.log10(rate * 1000) - 0.02 * methods.index(method)
        noise = random.Random(f"{rate} {method} {seed}").gauss(0, 0.012)
        yield MadeUp(
            settings={"learning_rate": rate, "merge": {"method": method}, "seed": seed,
                      "data_seed": seed, "num_rounds": num_rounds},
            top=top + noise,
            payload=PAYLOAD // 2 if method in ("ties", "dare") else PAYLOAD,
        )  # fmt: skip
