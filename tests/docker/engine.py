"""A copy of the project whose images and containers are the tests' own, on the real engine."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.e2e.commands import ROOT, Command, Shell

TRAIN_IMAGE, DEBUG_IMAGE = "scaling-fl-test:train", "scaling-fl-test:debug"
BUILD_SECONDS = 1500.0
"""The first build on a machine installs all libraries; those after it take seconds."""


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert not check or found.returncode == 0, found.stderr
    return found


_KINDS = {"container": ["--all"], "network": [], "volume": []}


def leftovers() -> set[tuple[str, str]]:
    """List everything on the engine that a call could leave behind: kind and name."""
    found = set()
    for kind, options in _KINDS.items():
        listed = docker(kind, "ls", *options, "--format", "{{json .}}").stdout.splitlines()
        entries = [json.loads(line) for line in listed]
        found |= {(kind, str(entry.get("Names") or entry["Name"])) for entry in entries}
    return found


def remove_new(before: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Remove what was not there before, so that one failure does not cause others; return it.

    The engine may remove a container a moment after its command has ended: that is none.
    """
    patience_ends = time.monotonic() + 10
    while (new := leftovers() - before) and time.monotonic() < patience_ends:
        time.sleep(0.2)
    for kind, name in sorted(new):  # containers first
        docker(kind, "rm", *(["--force"] if kind == "container" else []), name, check=False)
    return new


class Project:
    """A clone of the project with its own ``.env``, as a stranger has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tracked = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
            capture_output=True,
            text=True,
            check=True,
        )
        for name in tracked.stdout.splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self._git("init", "-q")
        self._git("add", "--all")
        self._git(
            "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "as it is"
        )

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    @property
    def commit(self) -> str:
        return self._git("rev-parse", "HEAD")

    def type(self, shell: Shell, *arguments: str, **environ: str) -> Command:
        """Type run-local.sh with ``RUNTIME=docker`` in the shell's folder."""
        images = {"TRAIN_IMAGE": TRAIN_IMAGE, "DEBUG_IMAGE": DEBUG_IMAGE}
        program = str(self.folder / "run-local.sh")
        return shell.type(program, *arguments, **({"RUNTIME": "docker"} | images | environ))

    def train(self, shell: Shell, *arguments: str, **environ: str) -> Command:
        return self.type(shell, "scripts/train_federated.py", *arguments, **environ)


def as_somebody_else(shell: Shell, *argv: str, uid: int, **environ: str) -> Command:
    """Type a command as a user without any name who may use the engine; needs root."""
    group = os.stat("/var/run/docker.sock").st_gid
    ids = [f"--reuid={uid}", f"--regid={uid}", f"--groups={group}"]
    return shell.type(shutil.which("setpriv") or "setpriv", *ids, *argv, **environ)


def inspect(kind: str, name: str) -> Any:
    return json.loads(docker(kind, "inspect", name).stdout)[0]


def image_files(image: str) -> set[str]:
    """List all files in an image below /workspace."""
    listing = ["-c", "find /workspace -type f"]
    return set(docker("run", "--rm", "--entrypoint", "sh", image, *listing).stdout.split())
