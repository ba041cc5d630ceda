"""The console shows bars to a person, lines to a file, and never stops a run."""

import io
import os
import pty
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from scaling_fl.reporting.console import Console
from scaling_fl.reporting.picture import Picture

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
ROUND = {"event": "round", "round": 1, "metrics": METRICS, "clients": [{}, {}, {}, {}]}
DEMONSTRATION = f"""
import sys, time
from rich.console import Console as RichConsole

from scaling_fl.reporting.console import Console
from scaling_fl.reporting.picture import Picture
lines = []
console = Console(log=lines.append, num_rounds=2)
console.show({{"event": "stage", "text": "loading the model"}})
time.sleep(0.3)
progress = {{"event": "progress", "round": 1, "num_done": 0}}
for step in range(1, 11):
    console.show(progress | {{"clients": [[3, step, 10, 0.25]]}})
    time.sleep(0.5 if step == 9 else 0.01)
print("stray", flush=True)
console.show({ROUND!r})
console.close()
console.line("closing")
open("log.txt", "w").write("|".join(lines))
"""


def show_round(console: Console) -> None:
    console.show({"event": "start", "job_name": "job"})
    console.show({"event": "stage", "text": "loading the model"})
    console.show({"event": "resume", "round": 0, "num_rounds": 2})
    for step in (1, 2):
        rows = [[0, step, 2, 0.5]]
        console.show({"event": "progress", "round": 1, "clients": rows, "num_done": 0})
    console.show(ROUND | {"failures": [{"client": 3, "reason": "its loss is nan"}]})
    console.show({"event": "note", "level": "warning", "text": "the disk is nearly full"})
    console.show({"event": "checkpoint", "round": 1})
    console.close()
    console.line("the\nsummary")


def test_without_a_terminal_there_is_one_line_per_round_and_no_bar() -> None:
    stream, logged = io.StringIO(), list[str]()
    show_round(Console(stream, logged.append))
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


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"event": "resume", "round": 3, "num_rounds": 9}, "resuming after round 3 of 9\n"),
        ({"event": "ready", "round": 3}, "resuming after round 3 of 5\n"),
        ({"event": "resume", "round": 5}, "nothing is left to do: round 5 of 5 is done\n"),
        ({"event": "resume", "round": 0}, ""),
        (
            {"event": "resume", "round": 3, "stopped_by": "stop_when.bytes=9 (why)"},
            "nothing is left to do: round 3 of 5 was the last by stop_when.bytes=9 (why)\n",
        ),
        (
            {"event": "round", "round": 2, "stopped_by": "stop_when.bytes=9 (why)"},
            "round 2/5 | \nthe run ends after round 2 by stop_when.bytes=9 (why)\n",
        ),
        ({"event": "round", "round": 2, "num_clients": 1}, "round 2/5 | 1 client\n"),
        ({"event": "of a later version"}, ""),
    ],
)
def test_what_a_worker_tells_is_shown_as_what_a_journal_holds(
    event: dict[str, object], line: str
) -> None:
    stream = io.StringIO()
    Console(stream, num_rounds=5).show(event)
    assert stream.getvalue() == line


def on_a_terminal(folder: Path, code: str, term: str = "xterm", **environ: str) -> str:
    parent, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        stdout=child,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": term, "COLUMNS": "100"} | environ,
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


def test_a_cell_of_a_notebook_gets_plain_lines(tmp_path: Path) -> None:
    """It gives ``!command`` a terminal of 80 columns that understands no movements."""
    shown = on_a_terminal(tmp_path, DEMONSTRATION, term="xterm-color", JPY_PARENT_PID="1")
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


def test_without_a_terminal_a_line_says_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a silence, from the start to the last evaluation; the log keeps lines alone."""
    stream, logged = io.StringIO(), list[str]()
    console = Console(stream, logged.append, num_rounds=2)
    console.tick()
    console.show({"event": "stage", "text": "loading the model"})
    console.tick()
    assert stream.getvalue() == "loading the model\n", "the last line is too fresh"
    monkeypatch.setattr("scaling_fl.reporting.console.LONGEST_SILENCE_SECONDS", 0.0)
    progress = {"event": "progress", "round": 1, "num_done": 1}
    console.tick()
    console.show(progress | {"clients": [[3, 5, 10, 0.25]]})
    console.tick()
    console.show(progress | {"clients": [], "num_done": 2})
    console.tick()
    console.show(ROUND)
    console.tick()
    console.close()
    console.tick()
    assert [line.rsplit(" | 0:0", 1)[0] for line in stream.getvalue().splitlines()] == [
        "loading the model",
        "still loading the model",
        "round 1/2 | 1 client done | client 3 at step 5/10, loss 0.2500",
        "round 1/2 | 2 clients done, merging and evaluating",
        ROUND_LINE,
        "round 2/2",
    ]
    assert logged == ["loading the model", ROUND_LINE]


def test_the_round_under_way_is_told_where_its_clients_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run with noise says nothing of its clients, whose number may be a secret."""
    stream = io.StringIO()
    console = Console(stream)
    monkeypatch.setattr("scaling_fl.reporting.console.LONGEST_SILENCE_SECONDS", 0.0)
    console.show({"event": "stage", "text": "loading the model"})
    console.show({"event": "resume", "round": 0, "num_rounds": 2})
    console.tick()
    for number in (1, 2):
        console.show({"event": "round", "round": number, "metrics": {}, "clients": []})
        console.tick()
    lines = [line.split(" | ")[0] for line in stream.getvalue().splitlines()]
    assert lines == ["loading the model", "round 1/2", "round 1/2", "round 2/2", "round 2/2"]


def test_what_is_spent_of_budgets_is_told_and_says_how_long_it_still_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of the bytes are spent in two rounds and more than half of the seconds in three."""
    monkeypatch.setattr("scaling_fl.reporting.console.LONGEST_SILENCE_SECONDS", 0.0)
    stream = io.StringIO()
    console = Console(stream)
    rows = [("stop_when.bytes=800", "bytes.total", 800.0, 200.0)]
    rows.append(("stop_when.seconds=9", "time.round_seconds", 9.0, 1.0))
    names = ("setting", "metric", "most", "spent")
    budgets = [dict(zip(names, row, strict=True)) for row in rows]
    began = (datetime.now(UTC) - timedelta(seconds=120)).isoformat()
    console.show(
        {"event": "resume", "time": began, "round": 1, "num_rounds": 99, "budgets": budgets}
    )
    for number in (2, 3):
        metrics = {"bytes.total": 200.0 * number, "time.round_seconds": 2.0}
        console.show({"event": "round", "round": number, "metrics": metrics, "clients": []})
        console.tick()
    told = [line for line in stream.getvalue().splitlines() if line.startswith("round")][1::2]
    assert [line.split(" | ")[1:3] for line in told] == [
        ["50% of stop_when.bytes=800", "33% of stop_when.seconds=9"],
        ["75% of stop_when.bytes=800", "56% of stop_when.seconds=9"],
    ]
    # 60 seconds a round: of the bytes, two rounds are left and then one, of the rounds 97 and 96
    assert [line.split(" | ")[-1] for line in told] == [
        "2:00 so far, about 4:00 left",
        "2:00 so far, about 1:00 left",
    ]


def test_a_budget_is_a_bar_below_that_of_the_rounds() -> None:
    picture, stream = Picture(), io.StringIO()
    budget = {"setting": "privacy.max_epsilon=0.123456789", "metric": "privacy.epsilon"}
    budget |= {"most": 8.0, "spent": 2.0}
    picture.resume({"round": 1, "budgets": [budget]}, 99)
    picture.finish(2, 99, {"privacy.epsilon": 4.0})
    RichConsole(file=stream, width=80).print(picture.render())
    rounds, spent = stream.getvalue().splitlines()
    assert rounds.startswith("rounds ")
    assert spent.split()[0] == "budget"
    assert spent.rstrip().endswith("50%  of privacy.max_epsilon=0.123456789")


def test_clients_with_names_are_told_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaling_fl.reporting.console.LONGEST_SILENCE_SECONDS", 0.0)
    stream = io.StringIO()
    console = Console(stream, num_rounds=2)
    console.show({"event": "partition", "client_names": ["10", "North"]})
    console.show({"event": "progress", "round": 1, "num_done": 0, "clients": [[0, 5, 9, 0.25]]})
    console.tick()
    console.show(ROUND | {"failures": [{"client": 1, "reason": "its loss is nan"}]})
    console.close()
    running, _, warning = stream.getvalue().splitlines()
    assert "client 0 (10) at step 5/9" in running
    assert warning == "warning: round 1: client 1 (North) was left out: its loss is nan"
