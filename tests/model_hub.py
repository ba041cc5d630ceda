"""A model hub on this machine: it serves folders the way huggingface_hub asks for them."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A running hub; ``requests`` are the method and path of all that it was asked."""

    folder: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)

    def environment(self, home: Path) -> dict[str, str]:
        """Give the variables that send a process with an empty cache here."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}

    def downloads(self, suffix: str) -> int:
        return sum(r.startswith("GET") and r.endswith(suffix) for r in self.requests)


@contextmanager
def model_hub(folder: Path) -> Iterator[Hub]:
    """Serve the repositories ``folder/<owner>/<name>`` until the context ends."""
    hub = Hub(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            path = self.path.partition("?")[0]
            hub.requests.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self._describe(folder / "/".join(parts[2:4]), parts[4:])
            elif len(parts) >= 5 and parts[2] == "resolve":
                self._give(folder / "/".join(parts[:2]), "/".join(parts[4:]))
            else:
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

        def _describe(self, repository: Path, what: list[str]) -> None:
            if not repository.is_dir():
                self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
                return
            names = sorted(path.name for path in repository.iterdir())
            body: object = {
                "id": "/".join(repository.parts[-2:]),
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in names],
            }
            if what[:1] == ["tree"]:
                subfolder = bool(what[2:])
                body = [] if subfolder else [self._entry(repository / name) for name in names]
            self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

        def _entry(self, path: Path) -> dict[str, object]:
            size = path.stat().st_size
            return {"type": "file", "path": path.name, "size": size, "oid": COMMIT}

        def _give(self, repository: Path, name: str) -> None:
            if not repository.is_dir():
                self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
            elif not (repository / name).is_file():
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            else:
                content = (repository / name).read_bytes()
                tag = hashlib.sha256(content).hexdigest()
                self._send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
