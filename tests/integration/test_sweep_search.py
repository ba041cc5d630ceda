"""A search chooses points by what the runs before have come to, and goes on where it was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaling_fl.commands.sweeps.runs import open_queue
from scaling_fl.commands.sweeps.sweep import SweepOptions, main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_signals")]

RATES = {"low": 1e-4, "high": 10.0, "log": True}


def search(folder: Path, settings: dict[str, Any], **options: Any) -> int:
    file = folder / "rates.yaml"
    rates = {"ranges": {"learning_rate": RATES}, "trials": 7, "prune": True} | options
    file.write_text(yaml.safe_dump({"overrides": settings, "search": rates}))
    return main(SweepOptions(file=file, parallel=1))


def entries(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(file.read_text()) for file in folder.glob("sweeps/rates/*/entry.json")]
    return [each["entry"] for each in sorted(found, key=lambda each: each["order"])]


def test_a_search_prunes_goes_on_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {
        **{"task_name": "20newsgroups_topics", "model": "tiny", "optimiser": "adamw"},
        **{"num_clients": 2, "num_rounds": 3, "num_local_steps": 2, "batch_size": 8},
        **{"num_threads": 1, "device": "cpu", "site_ids": [0]},
        "data": {"max_train_examples": 80, "max_test_examples": 40},
    }
    assert search(tmp_path, settings, trials=4) == 0
    first = entries(tmp_path)
    assert [entry["outcome"] for entry in first] == ["done"] * 4
    stale = replace(open_queue("sweeps", "rates").entries()[0], key="0" * 64, outcome="waiting")
    open_queue("sweeps", "rates").add([stale])  # as one of other code, whose key is another
    assert search(tmp_path, settings) == 0
    found = entries(tmp_path)
    assert found.pop(4)["outcome"] == "waiting", "it is left alone"
    assert [entry["key"] for entry in found[:4]] == [entry["key"] for entry in first]
    assert len({entry["key"] for entry in found}) == 7
    assert {entry["outcome"] for entry in found} <= {"done", "pruned"}
    assert [entry["starts"] for entry in found] == [1] * 7
    said = capsys.readouterr().out
    assert "best of" in said
    assert search(tmp_path, settings) == 0, "all of them are there"
    assert len(list((tmp_path / "runs").glob("*/run.json"))) == 7
    assert search(tmp_path, settings, metric="validation.acuracy") == 1
    told = capsys.readouterr().err
    assert "search.metric must be a metric that the runs report, got validation.acuracy" in told
