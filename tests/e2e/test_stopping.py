"""The command ends a run by a rule, says so wherever the run is told, and goes on beyond it."""

from pathlib import Path

import pytest

from tests.e2e.commands import Job, Shell, arguments, federation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_budget_of_bytes_ends_a_run_and_a_larger_one_goes_on_in_it(
    shell: Shell, corpus: Path
) -> None:
    job = Job(shell.folder / "checkpoints", shell.folder / "runs" / "1")

    def train(**changes: object) -> str:
        given = {"job_name": "budget", "checkpoints_dir": "checkpoints", "num_rounds": 9}
        given |= {"site_ids": [0, 1], **changes}
        return shell.train(*arguments(federation(corpus, **given))).end(expect=0).out

    train(num_rounds=1)
    (each,) = job.read("metrics.json")["bytes.total"]["values"]
    budget = {"stop_when.bytes": int(2.5 * each)}
    by = f"stop_when.bytes={2.5 * each:.0f} (one more round would make it {3 * each:,.0f} bytes)"
    said = train(**budget)
    assert f"\nthe run ends after round 2 by {by}\n" in said
    assert f"\nJob budget completed, 2 of 9 rounds, ended by {by}.\n" in said
    assert "\nTo train further, give a larger stop_when.bytes to:\n" in said
    assert (job.status, job.last_round, job.read("info.json")["stopped_by"]) == ("COMPLETED", 2, by)

    said = train(**budget)
    assert f"\nnothing is left to do: round 2 of 9 was the last by {by}\n" in said
    assert (job.status, job.last_round) == ("COMPLETED", 2)

    assert "\nresuming after round 2 of 3\n" in train(num_rounds=3)
    assert (job.status, job.last_round) == ("COMPLETED", 3)
    assert job.read("info.json")["stopped_by"] is None
    assert job.read("metrics.json")["bytes.total"]["values"] == [each, 2 * each, 3 * each]
