"""The console shows bars to a person, lines to a file, and never stops a run."""

import io
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scaling_fl.reporting.console import Console

ROOT = Path(__file__).parents[3]
METRICS = {
    "train.loss": 0.5,
    "train.accuracy": 0.75,
    "bytes.download": 8.2e6,
    "bytes.upload": 4100.0,
    "validation.accuracy": 0.8,
    "validation.f1.comp": 0.3,
    "time.round_seconds": 12.34,
}
ROUND_LINE = (
    "round 1/2 | train loss 0.5000, accuracy 0.7500 | validation accuracy 0.8000 | "
    "4 clients, 12.3 s, 8.2 MB down, 4.1 kB up"
)
DEMONSTRATION = f"""
import sys, time
from scaling_fl.reporting.console import Console
lines = []
console = Console(log=lines.append)
console.stage("loading the model")
time.sleep(0.3)
for step in range(1, 11):
    console.client_progress(1, 2, 3, step, 10, 0.25)
    time.sleep(0.5 if step == 9 else 0.01)
print("stray", flush=True)
console.round_done(1, 2, {METRICS!r}, 4, [])
console.close()
console.line("closing")
open("log.txt", "w").write("|".join(lines))
"""


def run_round(console: Console) -> None:
    console.stage("loading the model")
    for step in (1, 2):
        console.client_progress(1, 2, 0, step, 2, 0.5)
    console.round_done(1, 2, METRICS, 4, [{"client": 3, "reason": "its loss is nan"}])
    console.warn("the disk is nearly full")
    console.close()
    console.line("the\nsummary")


def test_without_a_terminal_there_is_one_line_per_round_and_no_bar() -> None:
    stream, logged = io.StringIO(), list[str]()
    run_round(Console(stream, logged.append))
    expected = [
        "loading the model",
        ROUND_LINE,
        "warning: round 1: client 3 was left out: its loss is nan",
        "warning: the disk is nearly full",
        "the",
        "summary",
    ]
    assert stream.getvalue().splitlines() == expected
    assert logged == expected


def on_a_terminal(folder: Path, code: str, term: str = "xterm") -> str:
    parent, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        stdout=child,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": term, "COLUMNS": "100"},
    ):
        os.close(child)
        shown = b""
        while True:
            try:
                data = os.read(parent, 65536)
            except OSError:  # the other end is closed
                break
            shown += data
    os.close(parent)
    return shown.decode()


def test_a_terminal_shows_bars_and_the_log_has_only_lines(tmp_path: Path) -> None:
    shown = on_a_terminal(tmp_path, DEMONSTRATION)
    for text in ("loading the model", "client 3", "9/10", "loss 0.2500", ROUND_LINE[:60], "stray"):
        assert text in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back
    assert shown.endswith("closing\r\n")
    log = (tmp_path / "log.txt").read_text()
    assert log == f"loading the model|{ROUND_LINE}|closing"


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(tmp_path: Path) -> None:
    shown = on_a_terminal(tmp_path, DEMONSTRATION, term="dumb")
    assert shown.splitlines() == ["loading the model", "stray", ROUND_LINE, "closing"]


def test_a_reader_that_leaves_does_not_stop_the_run() -> None:
    code = (
        "from scaling_fl.reporting.console import Console\nimport sys\n"
        "lines = []; console = Console(log=lines.append)\n"
        "sys.stdin.readline()\n"
        "for number in range(10_000): console.line(f'line {number}')\n"
        "print(len(lines), file=sys.stderr)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdin
        assert process.stderr
        process.stdout.close()
        process.stdin.write("go on\n")
        process.stdin.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, "10000\n")


def test_a_closed_stream_is_not_an_error() -> None:
    stream, logged = io.StringIO(), list[str]()
    console = Console(stream, logged.append)
    stream.close()
    console.line("still logged")
    assert logged == ["still logged"]


def test_what_the_stream_cannot_encode_is_replaced() -> None:
    raw = io.BytesIO()
    stream, logged = io.TextIOWrapper(raw, encoding="ascii"), list[str]()
    Console(stream, logged.append).line("café [bold]x[/bold]")
    assert raw.getvalue() == b"caf? [bold]x[/bold]\n"
    assert logged == ["café [bold]x[/bold]"]


def test_the_redraws_of_another_program_leave_only_their_last_line() -> None:
    stream = io.StringIO()
    Console(stream).line("[worker 0]\r 10%|#   |\r 90%|### |\x1b[31m red\x1b[0m\x07\r\n")
    assert stream.getvalue() == " 90%|### | red\n"


def test_lines_of_many_threads_stay_whole() -> None:
    stream, logged = io.StringIO(), list[str]()
    console = Console(stream, logged.append)

    def talk(name: str) -> None:
        for _ in range(200):
            console.line(name * 50)

    threads = [threading.Thread(target=talk, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stream.getvalue().split()) == sorted(name * 50 for name in "abcd" * 200)
    assert sorted(logged) == sorted(stream.getvalue().split())


@pytest.mark.parametrize("module", ["console", "summary", "partition_figure"])
def test_importing_it_brings_in_nothing_heavy(module: str) -> None:
    code = f"import sys, scaling_fl.reporting.{module}; print([*sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for heavy in ("torch", "matplotlib", "rich", "pandas", "numpy", "sacred"):
        assert f"'{heavy}'" not in loaded
