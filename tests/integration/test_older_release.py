"""Jobs of the release before this one are resumed, evaluated and exported as if they were new.

The fixture has two of them, of two rounds each; ``@FOLDER@`` stands for the folder they were in.
Another kind of processor than the one that ran them computes the last bits differently: there, what
depends on those bits is compared as numbers that are nearly equal.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from one_process import QuickRun, outcome
from transformers import AutoModelForSequenceClassification

from scaling_fl.commands import evaluate, export
from scaling_fl.config.older import in_todays_names

FIXTURE = Path(__file__).parents[1] / "fixtures" / "jobs_of_e368924"
JOBS = {"feedback": "1", "flasc": "2"}
"""The names of the jobs, and of their tracked runs."""


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the jobs are in now, which is the current one."""
    folder = tmp_path / "jobs"
    shutil.copytree(FIXTURE, folder)
    for path in [*folder.glob("checkpoints/*/journal.jsonl"), *folder.glob("runs/*/*.json")]:
        path.write_text(path.read_text().replace("@FOLDER@", str(folder)))
    monkeypatch.chdir(folder)
    return folder


def settings_with_round_3(jobs: Path, job: str) -> dict[str, Any]:
    stored = json.loads((jobs / "checkpoints" / job / "round-000002" / "config.json").read_text())
    return in_todays_names(stored) | {"num_rounds": 3, "data": {"cache_dir": str(jobs / "cache")}}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_goes_on_as_if_this_release_had_begun_it(
    jobs: Path, corpus: Path, tmp_path: Path, job: str
) -> None:
    settings = settings_with_round_3(jobs, job)
    resumed = QuickRun(tmp_path / "resumed", shared=corpus, **settings)
    resumed.checkpoints = jobs / "checkpoints" / job
    resumed.url = str(resumed.checkpoints)
    resumed.start_here()
    whole = QuickRun(tmp_path / "whole", shared=corpus, **settings).start_here()
    found, expected = outcome(resumed), outcome(whole)
    for side in (found, expected):
        side["metrics"].pop("merge.residual")  # the release before did not report this metric
    if all(torch.equal(whole.state(2)[name], value) for name, value in resumed.state(2).items()):
        assert found == expected
    assert are_close(found["metrics"], expected["metrics"])
    assert are_close(found["clients"], expected["clients"])


def are_close(found: Any, expected: Any) -> bool:
    """Compare nested values: floats to a thousandth, everything else exactly."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            are_close(found[name], value) for name, value in expected.items()
        )
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(are_close, found, expected))
    if isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=1e-3, abs_tol=1e-6)
    return bool(found == expected)


@pytest.mark.parametrize(("job", "number"), JOBS.items())
def test_a_run_is_evaluated_to_what_it_reported(
    jobs: Path, capsys: pytest.CaptureFixture[str], job: str, number: str
) -> None:
    metrics = json.loads((jobs / "runs" / number / "metrics.json").read_text())
    reported = {
        name: series["values"][-1]
        for name, series in metrics.items()
        if name.startswith("validation.")
    }
    options = {"checkpoint": f"runs/{number}", "tiers": job == "feedback", "json": True}
    assert evaluate.main(options) == 0
    evaluated = json.loads(capsys.readouterr().out)["metrics"]
    for name, value in reported.items():
        assert evaluated[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("number", JOBS.values())
def test_a_run_is_exported(jobs: Path, number: str) -> None:
    assert export.main({"checkpoints": [f"runs/{number}"], "out": Path("merged")}) == 0
    model = AutoModelForSequenceClassification.from_pretrained("merged")
    assert model.config.id2label == {0: "EAP", 1: "HPL", 2: "MWS"}
    assert all(torch.isfinite(weights).all() for weights in model.parameters())
