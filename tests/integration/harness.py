"""Run real workers on the tiny model, without Sacred: what integration tests have in common."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from scaling_fl.config import read_config
from scaling_fl.runtime.machines.launch import Callbacks, WorkerGroup
from scaling_fl.runtime.machines.node import Node, read_node
from scaling_fl.runtime.machines.start import FreshProcesses
from scaling_fl.runtime.record.journal import JobRecord, Journal, JournalTail, fold
from tests.preloaded import lasting_process

WORDS = {
    "EAP": ["raven", "chamber", "heart", "casque", "pit"],
    "HPL": ["eldritch", "abyss", "cult", "dream", "city"],
    "MWS": ["creature", "mountain", "misery", "father", "ice"],
}


def write_corpus(path: Path, *, num_rows: int, seed: int) -> Path:
    """Write a spooky_author file whose authors can be told apart by their words."""
    rng = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "author"])
        for row in range(num_rows):
            author = rng.choice(sorted(WORDS))
            words = rng.choices(WORDS[author], k=rng.randint(2, 6))
            writer.writerow([f"id{row}", " ".join(words), author])
    return path


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Describe a small federation whose files all lie in ``folder``."""
    train, test = folder / "train.csv", folder / "test.csv"
    if not train.exists():
        write_corpus(train, num_rows=96, seed=1)
        write_corpus(test, num_rows=50, seed=2)
    base = {
        "site_ids": [0],
        "num_clients": 4,
        "num_rounds": 3,
        "num_local_epochs": 1,
        "learning_rate": 0.01,
        "optimiser": "adamw",
        "batch_size": 8,
        "val_batch_size": 16,
        "max_seq_len": 32,
        "model": "tiny",
        "task_name": "spooky_author",
        "train_path": str(train),
        "test_path": str(test),
        "num_threads": 1,
        "device": "cpu",
        "data": {"cache_dir": str(folder / "cache")},
    }
    return base | changes


class Run:
    """One start of a federation in ``folder``; its results are read from what it left there.

    With ``url`` the checkpoints go to an object store, and only the journal is in the folder.
    """

    def __init__(self, folder: Path, *, url: str | None = None, **changes: Any) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        shared = changes.pop("shared", folder.parent)
        has_data = changes.pop("has_data", True)
        self.config = read_config(settings(shared, **changes), has_data=has_data)
        self.checkpoints = folder / "checkpoints"
        self.checkpoints.mkdir(exist_ok=True)
        self.url = url or str(self.checkpoints)
        self.events: list[dict[str, Any]] = []
        self.printed: list[str] = []
        self.group: WorkerGroup | None = None

    @property
    def journal(self) -> Path:
        return self.checkpoints / "journal.jsonl"

    def start(
        self,
        *,
        environ: dict[str, str] | None = None,
        tick: Callable[["Run"], None] = lambda run: None,
        fresh: bool = False,
    ) -> "Run":
        """Run to the end; raises WorkerFailed like the command would.

        Workers are forked from a preloaded process, or get ``fresh`` interpreters: where a library
        reads the environment when it is imported, as that of the Hugging Face hub does.
        """
        node = read_node(self.config.site_ids, environ or {})
        with Journal(self.journal) as journal:
            journal.append("start", uid="u", job_name="j", run_id="1", host="h", pid=1)
        starter = FreshProcesses() if fresh else lasting_process()
        self.group = WorkerGroup(node, self._orders(node), num_threads=1, starter=starter)
        self.stopped_by = self.group.run(
            Callbacks(
                event=self.events.append, printed=self.printed.append, tick=lambda: tick(self)
            )
        )
        return self

    def _orders(self, node: Node) -> dict[str, Any]:
        job = {"checkpoints": self.url, "journal": str(self.journal)}
        return {
            "config": self.config.model_dump(mode="json"),
            "job": job if node.rank == 0 else None,
            "paths": [],
        }

    @property
    def record(self) -> JobRecord:
        return fold(JournalTail(self.journal).read_new())

    @property
    def digest(self) -> str | None:
        return self.record.last_digest

    def state(self, round_number: int, part: str = "state") -> dict[str, Any]:
        """Read a checkpoint's tensors: those of the model, or with "optimiser" the server's."""
        return load_file(self.checkpoints / f"round-{round_number:06d}" / f"{part}.safetensors")

    def manifest(self, round_number: int) -> dict[str, Any]:
        path = self.checkpoints / f"round-{round_number:06d}" / "manifest.json"
        return dict(json.loads(path.read_text()))

    def results(self) -> dict[str, tuple[list[int], list[float]]]:
        """All metrics but the times, which no two runs share."""
        return {
            name: (series["steps"], series["values"])
            for name, series in self.record.metrics.items()
            if not name.startswith("time.")
        }
