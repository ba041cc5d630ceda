"""A SuperLink as Flower's own command reaches it: submit a run, follow it, ask how it ended."""

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from scaling_fl.core.errors import UserError
from scaling_fl.flower.programs import program

COMPLETED = "finished:completed"
_BEFORE = ("Using SuperLink: ", "Listing all runs", "Displaying information")
_ASK_SECONDS = 60.0


class FlowerRefused(UserError):
    """Flower did not do what it was asked to do."""


@dataclass(frozen=True)
class FlowerRun:
    """What Flower knows of a run; ``status`` is pending, starting, running or finished:HOW."""

    run_id: str
    status: str
    details: str

    @property
    def is_over(self) -> bool:
        return self.status.startswith("finished")


@dataclass(frozen=True)
class Control:
    """A SuperLink that the file config.toml of FLWR_HOME knows by the name ``connection``."""

    environ: Mapping[str, str]
    connection: str

    def submit(
        self, app: Path, settings: Mapping[str, Any], federation: Mapping[str, Any] | None = None
    ) -> str:
        """Send an app to run and return the number of the run.

        ``settings`` are keys of ``[tool.flwr.app.config]``; ``federation`` are those of a
        simulation.

        Raises:
            FlowerRefused: the app cannot be packed, or the settings are none of it.
        """
        words = ["run", str(app), self.connection]
        if federation:
            words += ["--federation-config", " ".join(f"{k}={v}" for k, v in federation.items())]
        # As a file: on the command line, no value may hold a quotation mark.
        with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
            file.writelines(f"{key} = {toml_text(value)}\n" for key, value in settings.items())
            file.flush()
            return str(self._ask(*words, "--run-config", file.name)["run-id"])

    def run(self, run_id: str) -> FlowerRun:
        """Ask what became of a run."""
        (found,) = self._ask("ls", self.connection, "--run-id", run_id)["runs"]
        return _run(found)

    def runs(self) -> list[FlowerRun]:
        """List all runs that the SuperLink knows."""
        return [_run(found) for found in self._ask("ls", self.connection)["runs"]]

    def stop(self, run_id: str) -> None:
        """End a run."""
        self._ask("stop", run_id, self.connection)

    def register(self, public_key: Path) -> str:
        """Let the node with a key take part, and return its number."""
        found = self._ask("supernode", "register", str(public_key), self.connection)
        return str(found["node-id"])

    def nodes(self) -> dict[str, str]:
        """Return the status of each registered node (registered, online, offline)."""
        found = self._ask("supernode", "list", self.connection)["nodes"]
        return {str(node["node-id"]): str(node["status"]) for node in found}

    @contextmanager
    def output(self, run_id: str, look_seconds: float) -> Iterator[Iterator[str | None]]:
        """Give the lines that a run prints; None stands for so many seconds without any."""
        with subprocess.Popen(
            [program("flwr"), "log", run_id, self.connection, "--stream"],
            env=dict(self.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                yield _patient_lines(process.stdout, look_seconds) if process.stdout else iter(())
            finally:
                process.kill()

    def _ask(self, *words: str) -> dict[str, Any]:
        """Type a command of flwr; with ``--format json`` it ends with 0 even when it failed."""
        try:
            done = subprocess.run(
                [program("flwr"), *words, "--format", "json"],
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_ASK_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise FlowerRefused(f"flwr {words[0]} got no answer in {_ASK_SECONDS:.0f} s") from None
        answer = _answer(done.stdout)
        if not answer.get("success"):
            raise FlowerRefused(f"flwr {words[0]} failed: {_why(answer, done.stderr)}")
        return answer


def toml_text(value: str | int | float | bool) -> str:
    """Write a value as TOML does; its texts are those of JSON, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _run(found: Mapping[str, Any]) -> FlowerRun:
    return FlowerRun(str(found["run-id"]), str(found["status"]), str(found["status-details"]))


def _answer(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text[text.index("{") :])
    except ValueError:
        return {"error-message": text}
    return answer if isinstance(answer, dict) else {}


def _why(answer: Mapping[str, Any], stderr: str) -> str:
    """Return what Flower says, without the lines that tell what it was about to do."""
    text = str(answer.get("error-message") or "").strip() or stderr.strip()
    lines = [line.strip() for line in text.splitlines()]
    said = " ".join(line for line in lines if line and not line.startswith(_BEFORE))
    return said.rstrip(".") or "it said nothing"


def _patient_lines(output: IO[bytes], look_seconds: float) -> Iterator[str | None]:
    # Waiting in select, and in no lock: a signal may end it at any moment.
    rest = b""
    while True:
        if not select.select([output], [], [], look_seconds)[0]:
            yield None
            continue
        if not (read := os.read(output.fileno(), 1 << 16)):
            break
        *lines, rest = (rest + read).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")
