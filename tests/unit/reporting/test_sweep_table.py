"""What a person sees of a sweep: lines through a pipe, a table on a terminal, a plan before."""

import io
from typing import Any

from rich.console import Console as RichConsole

from scaling_fl.reporting.sweep_plan import PlannedRun, render
from scaling_fl.reporting.sweep_table import SweepRow, SweepTable, sums


def event(what: str, key: str, **fields: Any) -> dict[str, Any]:
    state = {"outcome": "waiting", "error": "", "run": "", "is_interrupted": False, "seconds": 2.0}
    return {"event": what, "key": key, "label": f"seed={key}"} | state | fields


def table(stream: io.StringIO) -> SweepTable:
    rows = [SweepRow(key, f"seed={key}", "waiting") for key in "012"]
    return SweepTable(rows, stream)


def test_a_pipe_gets_a_line_for_each_run_that_begins_or_ends() -> None:
    stream = io.StringIO()
    shown = table(stream)
    shown.open()
    shown.hear(event("started", "1"))
    metrics = {"validation.accuracy": 0.5, "validation.loss": 1.0}
    shown.hear(event("round", "1", round=4, num_rounds=4, metrics=metrics))
    shown.hear(event("ended", "1", outcome="done", run="runs/7"))
    shown.hear(event("ended", "0", outcome="waiting", error="no disk"))
    shown.hear(event("ended", "0", outcome="failed", error="no disk"))
    shown.hear(event("ended", "2", is_interrupted=True))
    shown.close()
    assert stream.getvalue().splitlines() == [
        "[2/3] begins: seed=1",
        "[2/3] finished: seed=1 (4 rounds, accuracy 0.5000, 2.0 s, runs/7)",
        "[1/3] failed and is tried again: seed=0 (2.0 s): no disk",
        "[1/3] failed for good: seed=0 (2.0 s): no disk",
        "[3/3] is interrupted: seed=2",
    ]


def drawn(shown: SweepTable, height: int) -> list[str]:
    stream = io.StringIO()
    RichConsole(file=stream, width=80).print(shown.render(height))
    return [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]


def test_a_table_has_what_runs_first_and_fits_the_screen() -> None:
    shown = table(io.StringIO())
    shown.hear(event("started", "2"))
    shown.hear(event("round", "2", round=1, num_rounds=4, metrics={"validation.accuracy": 0.25}))
    shown.note([SweepRow("0", "seed=0", "done", run="runs/1"), SweepRow("3", "seed=3", "waiting")])
    header, first, second, *rest = drawn(shown, 40)
    assert header.split() == ["run", "state", "round", "metric", "time"]
    assert first.split()[:5] == ["seed=2", "running", "1/4", "accuracy", "0.2500"]
    assert second.split() == ["seed=0", "finished"]
    assert "4 runs: 1 finished, 1 running, 2 waiting" in rest[-1]
    assert len(drawn(shown, 7)) == 3, "the most interesting run, and the sums"


def test_what_others_say_of_a_run_that_is_trained_here_changes_nothing() -> None:
    shown = table(io.StringIO())
    shown.hear(event("started", "1"))
    shown.note([SweepRow("1", "seed=1", "waiting")])
    assert shown.rows["1"].outcome == "running"


def test_the_outcomes_are_counted() -> None:
    assert sums([]) == "0 runs: none"
    assert sums([SweepRow("0", "a", "failed")]) == "1 run: 1 failed"


def planned(**changes: Any) -> PlannedRun:
    given: dict[str, Any] = {"label": "seed=0", "state": "new", "rounds_done": 0, "num_rounds": 4}
    given |= {"bytes_left": 4000, "total_bytes": 4000, "epsilon": None, "delta": None}
    return PlannedRun(**given | {"seconds": None} | changes)


def test_a_plan_has_a_line_for_each_run_and_the_sums_of_what_is_left() -> None:
    finished = planned(label="seed=1", state="finished", rounds_done=4, bytes_left=0)
    halfway = planned(label="seed=2", state="to resume", rounds_done=1, bytes_left=3000)
    text = render([planned(), finished, halfway], name="rates", num_slots=1)
    assert text.splitlines() == [
        "run     state      rounds   bytes",
        "seed=0  new           0/4  4.0 kB",
        "seed=1  finished      4/4  4.0 kB",
        "seed=2  to resume     1/4  4.0 kB",
        "",
        "sweep rates, 3 runs: 1 new, 1 finished, 1 to resume",
        "bytes that are left: 7.0 kB of 12.0 kB",
    ]


def test_epsilons_and_times_add_up_where_there_are_any() -> None:
    private = planned(epsilon=1.5, delta=1e-3, seconds=30.0)
    lines = render([private, private, planned(seconds=10.0)], name="x", num_slots=2).splitlines()
    assert lines[0].split() == ["run", "state", "rounds", "bytes", "epsilon", "time"]
    assert "about 35.0 s, 2 at once" in lines[-2]
    assert "at most 3 at delta 0.002" in lines[-1]
