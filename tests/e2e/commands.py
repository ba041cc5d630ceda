"""Type the real commands in a folder of their own, disturb them, and read what they leave."""

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TRAIN = [sys.executable, str(ROOT / "scripts" / "train_federated.py")]
CLUSTER = ("WORLD_SIZE", "RANK", "MASTER_", "LOCAL_", "TORCHELASTIC_", "GROUP_", "ROLE_")
CLUSTER += ("PET_", "CLUSTER_SPEC")
PATIENCE_SECONDS = 120.0

WORDS = {
    "EAP": ["raven", "chamber", "heart", "casque", "pit"],
    "HPL": ["eldritch", "abyss", "cult", "dream", "city"],
    "MWS": ["creature", "mountain", "misery", "father", "ice"],
}


class Shell:
    """Types commands in ``folder``; everything they start carries a mark by which it is found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mark = f"E2E_MARK={uuid.uuid4().hex}"
        self._commands: list[Command] = []

    def type(self, *argv: str, **environ: str) -> "Command":
        """Start a command; the environment is this one's, less trackers and clusters."""
        command = Command(self, list(argv), self.environ | environ, len(self._commands))
        self._commands.append(command)
        return command

    @property
    def environ(self) -> dict[str, str]:
        """The environment of what is typed here."""
        hidden = ("SACRED_", "MLFLOW_", "SCALING_FL_", "E2E_MARK", "PYTEST_", *CLUSTER)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
        name, value = self._mark.split("=")
        fixed = {name: value, "HF_HUB_OFFLINE": "1", "USER_NAME": "tester", "TERM": "dumb"}
        return kept | fixed

    def train(self, *arguments: str, **environ: str) -> "Command":
        return self.type(*TRAIN, *arguments, **environ)

    def processes(self) -> list[int]:
        """List all live processes that the commands typed here are or have started."""
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
        return [pid for pid in pids if self._is(pid)]

    def _is(self, pid: int) -> bool:
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        return self._mark.encode() in environ.split(b"\0")

    def seconds_until_empty(self, patience_seconds: float = 30.0) -> float:
        """Wait until nothing runs any more and return how long that took."""
        began = time.monotonic()
        wait_for(lambda: not self.processes(), "the end of all processes", patience_seconds)
        return time.monotonic() - began

    def close(self) -> list[str]:
        """End everything that was left behind and describe it."""
        for command in self._commands:
            command.reap()
        left = {pid: command_line(pid) for pid in self.processes()}
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return [f"process {pid}: {line}" for pid, line in left.items()]


class Command:
    """A command that was typed: running, or ended with a result."""

    def __init__(
        self, shell: Shell, argv: list[str], environ: Mapping[str, str], number: int
    ) -> None:
        self._shell, self.argv = shell, argv
        self._outputs = [shell.folder / f".{name}-{number}" for name in ("out", "err")]
        with self._outputs[0].open("wb") as out, self._outputs[1].open("wb") as err:
            # A session of its own, so that a signal to its group cannot reach the tests.
            self.process = subprocess.Popen(
                argv,
                cwd=shell.folder,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> str:
        return self._outputs[0].read_text()

    @property
    def err(self) -> str:
        return self._outputs[1].read_text()

    def end(self, *, expect: int, patience_seconds: float = PATIENCE_SECONDS) -> "Command":
        """Wait for the end and check the exit code."""
        code = self.process.wait(patience_seconds)
        assert code == expect, f"{self.argv}\nexit code {code}\n{self.out}\n{self.err}"
        return self

    def reap(self) -> None:
        """Collect the exit code, if there is one by now or very soon."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)

    def signal(self, number: int) -> "Command":
        self.process.send_signal(number)
        return self

    def workers(self) -> list[int]:
        """List this command's worker processes, in the order in which they were started."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [
            pid for pid in map(int, text.split()) if "scaling_fl.jobs.worker" in command_line(pid)
        ]

    def wait_until_it_says(self, text: str) -> "Command":
        self.wait_until(lambda: text in self.out + self.err, f"{text!r} of {self.argv}")
        return self

    def wait_until(self, is_so: Callable[[], object], what: str) -> None:
        """Wait for something that happens while the command runs."""

        def is_over() -> bool:
            return bool(is_so()) or self.process.poll() is not None

        wait_for(is_over, what, PATIENCE_SECONDS)
        assert is_so(), f"ended before {what}:\n{self.out}\n{self.err}"

    @property
    def error(self) -> str:
        """The one error sentence on standard error; asserts that it is one."""
        lines = [line for line in self.err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.out + self.err
        return lines[0].removeprefix("Error: ")


class Job:
    """What a job has left so far: its checkpoint folder, its journal and its run folder."""

    def __init__(self, checkpoints: Path, run: Path) -> None:
        self.checkpoints, self.run = checkpoints, run

    def read(self, name: str) -> Any:
        return json.loads((self.run / name).read_text())

    @property
    def events(self) -> list[dict[str, Any]]:
        """The journal's whole lines."""
        try:
            text = (self.checkpoints / "journal.jsonl").read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.split("\n")[:-1]]

    @property
    def last_round(self) -> int:
        return max((e["round"] for e in self.events if e["event"] == "round"), default=0)

    @property
    def digest(self) -> str:
        return str(self.read("info.json")["last_digest"])

    @property
    def status(self) -> str:
        return str(self.read("run.json")["status"])

    @property
    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """All metrics but the times, which no two runs share."""
        return {
            name: (series["steps"], series["values"])
            for name, series in self.read("metrics.json").items()
            if not name.startswith("time.")
        }

    def assert_whole(self) -> None:
        """Check that no checkpoint is torn and that nothing half-made lies about."""
        for folder in self.checkpoints.glob("round-*"):
            manifest = json.loads((folder / "manifest.json").read_text())
            for name, file in manifest["files"].items():
                digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
                assert digest == file["sha256"], folder / name
        assert not list(self.checkpoints.glob(".*")), list(self.checkpoints.glob(".*"))
        assert not list(self.run.parent.glob(".*")), list(self.run.parent.glob(".*"))


def arguments(settings: Mapping[str, object]) -> list[str]:
    """Write settings as they are typed after ``with``."""
    return ["with", *(f"{key}={value}".replace(", ", ",") for key, value in settings.items())]


def federation(corpus: Path, **changes: object) -> dict[str, object]:
    """Describe a small federation on the texts in ``corpus``; ``_`` joins what a dot does."""
    base: dict[str, object] = {
        "site_ids": [0, 1],
        "num_clients": 4,
        "num_rounds": 6,
        "num_local_epochs": 4,
        "learning_rate": 0.01,
        "optimiser": "adamw",
        "batch_size": 8,
        "max_seq_len": 32,
        "model": "tiny",
        "task_name": "spooky_author",
        "train_path": corpus / "train.csv",
        "test_path": corpus / "test.csv",
        "num_threads": 1,
        "device": "cpu",
        "data.cache_dir": corpus / "cache",
    }
    return base | changes


def write_corpus(folder: Path) -> Path:
    """Write spooky_author texts whose authors can be told apart by their words."""
    for name, num_rows, seed in (("train.csv", 96, 1), ("test.csv", 50, 2)):
        rng = random.Random(seed)
        lines = ["id,text,author"]
        for row in range(num_rows):
            author = rng.choice(sorted(WORDS))
            words = " ".join(rng.choices(WORDS[author], k=rng.randint(2, 6)))
            lines.append(f"id{row},{words},{author}")
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def wait_for(is_so: Callable[[], object], what: str, patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while not is_so():
        assert time.monotonic() < deadline, f"waited {patience_seconds:.0f} s for {what}"
        time.sleep(0.05)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def resume_command(text: str) -> str:
    """Find the command that a run's closing lines tell to type."""
    found = re.search(r"^(?:To resume|To train further.*):\n  (.+)$", text, re.MULTILINE)
    assert found, text
    return found[1]
