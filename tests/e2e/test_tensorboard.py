"""The real command writes what TensorBoard's own reader reads, once, however the run was cut."""

import signal
from pathlib import Path

import pytest

from tests.e2e.commands import Job, Shell, arguments, federation
from tests.event_files import expected, reader_of, shown

pytestmark = pytest.mark.e2e


@pytest.mark.slow
def test_a_job_that_is_killed_and_goes_back_shows_each_round_once(
    shell: Shell, corpus: Path
) -> None:
    settings = federation(corpus, site_ids=[0], num_rounds=400, save_every=100, num_local_epochs=1)
    settings |= {"job_name": "job", "checkpoints_dir": "checkpoints", "tracking.tensorboard": True}
    job = Job(shell.folder / "checkpoints", shell.folder / "runs" / "1")
    command = shell.train(*arguments(settings))
    command.wait_until(lambda: job.last_round >= 10, "round 10")
    command.signal(signal.SIGKILL)
    shell.seconds_until_empty()
    seen = job.last_round
    is_open = reader_of(job.run)
    assert shown(is_open)
    settings["num_rounds"] = seen + 5
    shell.train(*arguments(settings)).end(expect=0)
    metrics = job.read("metrics.json")
    assert metrics["train.loss"]["steps"] == list(range(1, seen + 6))
    for reader in (is_open, reader_of(job.run)):
        assert shown(reader) == expected(metrics)


def test_a_run_that_lacks_the_library_leaves_nothing(shell: Shell, corpus: Path) -> None:
    (shell.folder / "lacking").mkdir()
    blocked = "import sys; sys.modules['tensorboard'] = None"
    (shell.folder / "lacking" / "sitecustomize.py").write_text(blocked)
    settings = federation(corpus, **{"tracking.tensorboard": True})
    before = set(shell.folder.iterdir())
    command = shell.train(*arguments(settings), PYTHONPATH=str(shell.folder / "lacking"))
    assert "pip install" in command.end(expect=2).error
    left = {path for path in shell.folder.iterdir() if not path.name.startswith(".")}
    assert left == before
