"""Run the commands that pages show, and write what they print below them.

    python docs/run_commands.py README.md docs/first-run.md ...

A block of ``console`` below a line ``<!-- run -->`` holds commands (after ``$``, some with lines up
to END) and what they print. ``<!-- run: first 8 -->``, or ``last 8``, keeps that many lines, and
``<!-- run: check -->`` marks output that is the same everywhere, which a test compares; ``outline``
keeps the rounds of a run and what it came to. The commands of a page run in one new folder, at 80
columns and through a pipe.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(
    r"(?P<head><!-- run(?:: (?P<how>[a-z]+)(?: (?P<count>\d+))?)? -->\n\n?```console\n)"
    r"(?P<body>.*?)```",
    re.S,
)
_COMMAND = re.compile(r"\$ (?:[^\n]*<<'END'\n.*?\nEND\n|(?:[^\n]*\\\n)*[^\n]*\n)", re.S)
_OUTLINE = re.compile(
    r"round \d+/\d+ \| train|Job |  (validation.accuracy|bytes in all|time taken) "
)


@dataclass(frozen=True)
class Block:
    """The commands of a block, how much of their output is kept, and what stands there."""

    commands: list[str]
    how: str
    count: int
    body: str


def blocks(page: Path) -> Iterator[Block]:
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield _block(match)


def printed(block: Block, folder: Path) -> str:
    """Run the commands of a block in a folder; return them, each with what it prints below."""
    shown = ""
    for command in block.commands:
        shown += command + _cut(_run(command.removeprefix("$ "), folder), block)
    return shown


def rewrite(page: Path) -> None:
    """Run the blocks of a page and write their output into it."""
    with tempfile.TemporaryDirectory() as folder:

        def run(match: re.Match[str]) -> str:
            return f"{match['head']}{printed(_block(match), Path(folder))}```"

        text = _BLOCK.sub(run, page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8")


def _block(match: re.Match[str]) -> Block:
    commands = _COMMAND.findall(match["body"])
    return Block(commands, match["how"] or "", int(match["count"] or 0), match["body"])


def _run(command: str, folder: Path) -> str:
    here = command.replace("./run-local.sh", f"{ROOT}/run-local.sh")
    here = here.replace(".venv/bin/", f"{ROOT}/.venv/bin/")
    run = subprocess.run(
        ["bash", "-c", here],
        cwd=folder,
        env=os.environ | {"COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    output = run.stdout.replace(os.path.relpath(ROOT, folder), str(ROOT))
    output = output.replace(f"{ROOT}/run-local.sh", "./run-local.sh").replace(f"{ROOT}/", "")
    lines = (line.rstrip() for line in output.splitlines())
    return "".join(f"{line}\n" for line in lines if not line.startswith("run-local: using"))


def _cut(output: str, block: Block) -> str:
    lines = output.splitlines(keepends=True)
    if block.how == "outline":
        return "".join(line for line in lines if _OUTLINE.match(line))
    if block.how not in ("first", "last") or len(lines) <= block.count:
        return output
    if block.how == "first":
        return "".join(lines[: block.count]) + "...\n"
    return "...\n" + "".join(lines[-block.count :])


if __name__ == "__main__":
    for name in sys.argv[1:]:
        rewrite(Path(name))
