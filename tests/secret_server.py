"""A local server that stands for Google's Secret Manager, in the test's own process."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers with what ``answers`` holds for a path, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def keep(self, reference: str, data: bytes) -> None:
        name = reference.removeprefix("sm://")
        payload = {"name": name, "payload": {"data": base64.b64encode(data).decode()}}
        self.answers[f"/v1/{name}:access"] = (200, json.dumps(payload).encode())


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        code, body = self.server.answers.get(self.path, (404, b'{"error": {"code": 404}}'))
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def secret_server() -> Iterator[Server]:
    """Serve until the context ends; no secret exists."""
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield found
        finally:
            found.shutdown()
            thread.join()
