"""A debugger spoken to in its own protocol, which stops in the round loop and reads a variable."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e.commands import ROOT, Command

ROUNDS = "scaling_fl/federation/rounds.py"


def line_of_the_round() -> int:
    """Find the line of the round loop on which a round's number is known."""
    lines = (ROOT / ROUNDS).read_text().splitlines()
    return next(n for n, text in enumerate(lines, 1) if "for number in range(" in text) + 1


class Debugger:
    """A client of the Debug Adapter Protocol: requests, their answers, and events."""

    def __init__(self, port: int, root: str) -> None:
        """Connect; ``root`` is the project's folder as the process sees it."""
        self._source = {"path": f"{root}/{ROUNDS}"}
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
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

    def attach(self, **how: Any) -> None:
        """Attach with one breakpoint in the round loop, and let the process go on."""
        self.ask("initialize", clientID="test", adapterID="python", pathFormat="path")
        attached = self.send("attach", name="test", justMyCode=False, **how)
        self.event("initialized")
        lines = [{"line": line_of_the_round()}]
        self.ask("setBreakpoints", source=self._source, breakpoints=lines)
        self.ask("configurationDone")
        self.answer(attached)

    def value_of(self, name: str) -> str:
        """Read a variable of the frame in which the process has stopped."""
        thread = self.event("stopped")["threadId"]
        frame = self.ask("stackTrace", threadId=thread)["stackFrames"][0]
        assert frame["source"]["path"].endswith("federation/rounds.py")
        value = self.ask("evaluate", expression=name, frameId=frame["id"])["result"]
        self.ask("setBreakpoints", source=self._source, breakpoints=[])
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
def debugger(command: Command, sign: str, port: int, root: str) -> Iterator[Debugger]:
    """Connect once the process says that it waits."""
    command.wait_until_it_says(sign)
    deadline = time.monotonic() + 60
    while True:
        client = Debugger(port, root)
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
