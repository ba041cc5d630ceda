"""A real debugger, spoken to in its own protocol, stops in the round loop and reads a variable."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docker.engine import Project
from tests.e2e.commands import ROOT, Command, Job, Shell, arguments, federation

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

PORT = 5678
ROUNDS = "/workspace/scaling_fl/federation/rounds.py"
FILES = "docker-compose.yaml:docker-compose.debug.yaml"


class Debugger:
    """A client of the Debug Adapter Protocol: requests, their answers, and events."""

    def __init__(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", PORT), timeout=120)
        self._stream = self._socket.makefile("rwb")
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def send(self, command: str, **arguments: Any) -> int:
        self._number += 1
        message = {"seq": self._number, "type": "request", "command": command}
        body = json.dumps(message | {"arguments": arguments}).encode()
        self._stream.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._stream.flush()
        return self._number

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return self.answer(self.send(command, **arguments))

    def answer(self, number: int) -> dict[str, Any]:
        while True:
            message = self._read()
            if message["type"] == "event":
                self._events.append(message)
            elif message.get("request_seq") == number:
                assert message["success"], message
                return dict(message.get("body") or {})

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event of that name, which may have come already."""
        while not any(event["event"] == name for event in self._events):
            message = self._read()
            if message["type"] == "event":
                self._events.append(message)
        found = next(event for event in self._events if event["event"] == name)
        self._events.remove(found)
        return dict(found.get("body") or {})

    def attach(self, breakpoint_line: int, **how: Any) -> None:
        """Attach with one breakpoint in the round loop, and let the process go on."""
        self.ask("initialize", clientID="test", adapterID="python", pathFormat="path")
        attached = self.send("attach", **how)
        self.event("initialized")
        lines = [{"line": breakpoint_line}]
        self.ask("setBreakpoints", source={"path": ROUNDS}, breakpoints=lines)
        self.ask("configurationDone")
        self.answer(attached)

    def value_of(self, name: str) -> str:
        """Read a variable of the frame in which the process has stopped."""
        thread = self.event("stopped")["threadId"]
        frame = self.ask("stackTrace", threadId=thread)["stackFrames"][0]
        assert frame["source"]["path"].endswith("federation/rounds.py")
        value = self.ask("evaluate", expression=name, frameId=frame["id"])["result"]
        self.ask("setBreakpoints", source={"path": ROUNDS}, breakpoints=[])
        self.ask("continue", threadId=thread)
        return str(value)

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        headers = {}
        while line := self._stream.readline().strip():
            name, _, value = line.partition(b":")
            headers[name.lower()] = int(value)
        assert headers, "the debugger has gone"
        return dict(json.loads(self._stream.read(headers[b"content-length"])))


@contextmanager
def debugger(command: Command, sign: str) -> Iterator[Debugger]:
    """Connect once the process says that it waits."""
    command.wait_until_it_says(sign)
    deadline = time.monotonic() + 60
    while True:
        client = Debugger()
        try:
            client.event("output")  # the adapter's greeting; a proxy without it behind hangs up
            break
        except (AssertionError, OSError):
            client.close()
            assert time.monotonic() < deadline, command.out + command.err
            time.sleep(0.5)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def line() -> int:
    """The line of the round loop on which a round's number is known."""
    text = (ROOT / "scaling_fl" / "federation" / "rounds.py").read_text().splitlines()
    return next(n for n, t in enumerate(text, 1) if "for number in range(" in t) + 1


@pytest.fixture
def settings(corpus: os.PathLike[str]) -> list[str]:
    changes = {"num_rounds": 2, "job_name": "job", "checkpoints_dir": "checkpoints/job"}
    return arguments(federation(corpus, **changes))  # type: ignore[arg-type]


def assert_complete(shell: Shell) -> None:
    job = Job(shell.folder / "checkpoints" / "job", shell.folder / "runs" / "1")
    assert (job.status, job.last_round) == ("COMPLETED", 2)


@pytest.mark.parametrize("worker", ["0", "1"])
def test_a_worker_waits_stops_in_the_round_loop_and_goes_on(
    project: Project, shell: Shell, settings: list[str], line: int, worker: str
) -> None:
    environ = {"COMPOSE_FILE": FILES, "SCALING_FL_DEBUG_WORKER": worker}
    command = project.train(shell, *settings, **environ)
    with debugger(command, f"worker {worker} waits for a debugger on port {PORT}") as client:
        client.attach(line)
        assert client.value_of("number") == "1"
        command.end(expect=0)
    assert_complete(shell)


def test_the_command_waits_and_its_workers_follow(
    project: Project, shell: Shell, settings: list[str], line: int
) -> None:
    command = project.train(shell, *settings, COMPOSE_FILE=FILES)
    with debugger(command, "waiting for a debugger on port 5678") as client:
        client.attach(line)
        workers = []
        for _ in range(2):
            child = client.event("debugpyAttach")
            worker = Debugger()
            worker.attach(line, **{k: child[k] for k in ("subProcessId",)})
            workers.append(worker)
        assert [worker.value_of("number") for worker in workers] == ["1", "1"]
        command.end(expect=0)
        for worker in workers:
            worker.close()
    assert_complete(shell)


def test_the_port_is_open_on_the_loopback_alone(
    project: Project, shell: Shell, settings: list[str]
) -> None:
    command = project.train(shell, *settings, COMPOSE_FILE=FILES)
    command.wait_until_it_says("waiting for a debugger")
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [address for address in listening if address.endswith(f":{PORT:04X}")] == [
        f"0100007F:{PORT:04X}"
    ]
    os.killpg(command.pid, 15)
    command.process.wait(60)
