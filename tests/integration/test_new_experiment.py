"""A project as the template writes it runs by its file of settings, on the tiny model."""

from pathlib import Path

import pytest
from harness import settings
from one_process import QuickRun

from scaling_fl.commands.new_experiment import ProjectRequest, write_project
from scaling_fl.config.typed import merged, read_typed

SMALL = ("num_rounds=2", "num_local_steps=2", "precision=fp32")


@pytest.mark.parametrize("task", ["medical", "generalnlp", "instruction"])
def test_a_new_project_runs(
    task: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = [f"task_name={task}", "base_model=tiny", "seq_length=256"]
    write_project(ProjectRequest(folder=Path("sums"), data=data, defaults=True))
    typed = read_typed(["sums/config.yaml", *SMALL], [tmp_path])
    assert typed.problems == []
    small = {"num_local_epochs": 2, "test_path": None}
    changes = merged(small, typed.settings)
    changes["data"] |= settings(corpus)["data"]
    run = QuickRun(tmp_path / "run", shared=corpus, **changes).start_here()
    assert run.record.last_round == 2
    assert len(run.record.metrics["validation.loss"]["values"]) == 1  # of the last round
    assert len(run.config.site_ids) == 1
    assert run.config.cohort_size(20) == 4  # 0.2 of 20 clients
