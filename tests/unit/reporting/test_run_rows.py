"""Runs as rows: the line of each, cut to a terminal, and the same in full for programs."""

import csv
import io
import json
import math
from typing import Any

import pytest

from scaling_fl.reporting.run_rows import (
    COLUMNS,
    RunRow,
    as_csv,
    as_json,
    differing,
    flat,
    main_metric,
    render,
)


def row(run: str, **changes: Any) -> RunRow:
    settings = {"job_name": f"job-{run}", "seed": int(run), "merge": {"method": "mean"}}
    values: dict[str, Any] = {
        "run": f"runs/{run}",
        "job": f"job-{run}",
        "status": "COMPLETED",
        "task": "agnews",
        "rounds": 4,
        "num_rounds": 4,
        "bytes": 2_791_104,
        "epsilon": None,
        "seconds": 1.5,
        "message": None,
        "stopped_by": None,
        "started": None,
        "host": None,
        "settings": dict(flat(settings)),
        "metrics": {"validation.accuracy": 0.8125, "train.loss": math.nan},
    }
    return RunRow(**{**values, **changes})


def test_a_run_is_a_line_that_says_in_what_it_differs() -> None:
    rows = [
        row("1", stopped_by="a rule"),
        row("2", status="DEAD", rounds=1, bytes=None, epsilon=1.2345),
    ]
    assert render(rows, metric="validation.accuracy", width=None).splitlines() == [
        "run     status     rounds  accuracy   bytes  epsilon  job    differs in",
        "runs/1  COMPLETED     4/4    0.8125  2.8 MB        -  job-1  seed=1 | ended by a rule",
        "runs/2  DEAD          1/4    0.8125       -     1.23  job-2  seed=2",
    ]


def test_a_running_run_says_what_is_spent_of_its_budgets() -> None:
    settings = {"stop_when.bytes": 5_582_208, "stop_when.seconds": 2.0, "stop_when.epsilon": None}
    running, ended = (row("1", status=status, settings=settings) for status in ("RUNNING", "DEAD"))
    _, *lines = render([running, ended], metric=None, width=None).splitlines()
    assert lines[0].endswith("job-1  50% of stop_when.bytes=5582208 | 75% of stop_when.seconds=2")
    assert lines[1].endswith("job-1")


def test_a_terminal_cuts_lines_and_a_pipe_does_not() -> None:
    rows = [row("1", job="a" * 100), row("2")]
    lines = render(rows, metric=None, width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert "a…  " in lines[1]
    assert "a" * 100 in render(rows, metric=None, width=None)


def test_json_and_csv_hold_all_of_a_run() -> None:
    rows = [row("1"), row("2", message="a, b")]
    first, second = json.loads(as_json(rows))
    assert [*first] == [*COLUMNS, "metrics", "settings"]
    assert first["metrics"] == {"validation.accuracy": 0.8125, "train.loss": None}
    assert second["settings"]["merge.method"] == "mean"
    table = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [each["seed"] for each in table] == ["1", "2"]
    assert [each["message"] for each in table] == ["", "a, b"]
    assert "merge.method" not in table[0]


def test_runs_differ_in_settings_and_not_in_names() -> None:
    nested = [{"job_name": "a", "x": {"y": 1, "z": [1]}}, {"job_name": "b", "x": {"y": 2}}]
    assert differing([dict(flat(each)) for each in nested]) == ["x.y", "x.z"]
    assert differing([]) == []


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["validation.loss", "validation.f1_macro", "validation.accuracy"], "validation.accuracy"),
        (["train.loss", "validation.loss", "validation.rouge"], "validation.rouge"),
        (["validation.loss", "validation.accuracy.sports"], "validation.loss"),
        (
            ["validation.exact_match", "validation.perplexity", "validation.mmlu.accuracy"],
            "validation.mmlu.accuracy",
        ),
        (["train.loss"], None),
        (
            ["validation.exact_match", "validation.loss", "validation.perplexity"],
            "validation.loss",
        ),
    ],
)
def test_the_metric_that_is_shown_is_the_task_s(names: list[str], wanted: str | None) -> None:
    assert main_metric(names) == wanted
