"""A real Chromium without a screen, driven by its own driver over the WebDriver protocol."""

import base64
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # there is no network
)  # fmt: skip
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Space": " ", "Right": "\ue014", "Down": "\ue015"}


def installed() -> str | None:
    """Return the browser that can be driven here; None: there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return found if shutil.which("chromedriver") else None


class Browser:
    """One window; what a page says on its console is kept."""

    def __init__(self, address: str, session: str) -> None:
        self._base = f"{address}/session/{session}"

    def open(self, page: Path) -> None:
        self._send("url", url=page.absolute().as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function in the page; returns what it returns."""
        return self._send("execute/sync", script=script, args=arguments)

    def wait_for(self, condition: str) -> None:
        """Wait until an expression holds, for at most the ten seconds of a script."""
        script = (
            "const done = arguments[0]; const look = () => "
            f"({condition}) ? done(true) : setTimeout(look, 20); look();"
        )
        self._send("execute/async", script=script, args=[])

    def press(self, *names: str) -> None:
        """Press and release keys, one after the other, in whatever has the focus."""
        actions = [
            {"type": kind, "value": KEYS[name]} for name in names for kind in ("keyDown", "keyUp")
        ]
        self._send("actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def focus(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).focus()", selector)

    def resize(self, width: int, height: int) -> None:
        self._send("window/rect", width=width, height=height)

    def dark(self, is_dark: bool) -> None:
        feature = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._command("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self) -> bytes:
        return base64.b64decode(self._send("screenshot", method="GET"))

    def console(self) -> list[str]:
        """Return what was said on the console since the last call, warnings and worse."""
        entries = self._send("se/log", type="browser")
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def _command(self, name: str, **parameters: Any) -> Any:
        return self._send("goog/cdp/execute", cmd=name, params=parameters)

    def _send(self, path: str, method: str = "POST", **content: Any) -> Any:
        data = json.dumps(content).encode() if method == "POST" else None
        request = Request(f"{self._base}/{path}", data=data, method=method)
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it."""
    with tempfile.TemporaryDirectory() as profile:
        driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            address = f"http://127.0.0.1:{_port(driver)}"
            options = {"binary": installed(), "args": [*FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            asked = json.dumps({"capabilities": {"alwaysMatch": wanted}}).encode()
            with urlopen(Request(f"{address}/session", data=asked), timeout=120) as answer:
                session = json.load(answer)["value"]["sessionId"]
            yield Browser(address, session)
            urlopen(Request(f"{address}/session/{session}", method="DELETE"), timeout=60).close()
        finally:
            driver.terminate()
            driver.wait()
            assert driver.stdout
            driver.stdout.close()


def _port(driver: "subprocess.Popen[bytes]") -> int:
    assert driver.stdout
    for line in driver.stdout:
        if match := re.search(rb"started successfully on port (\d+)", line):
            return int(match[1])
    raise AssertionError("chromedriver has ended")
