"""The record says which examples a run was trained and measured on, so that like meets like."""

from pathlib import Path

from harness import Run
from one_process import QuickRun


def hashes(run: Run) -> tuple[str, str, str]:
    baseline, partition = run.record.baseline, run.record.partition
    assert baseline
    assert partition
    return baseline["examples"], partition["examples"], partition["owners"]


def test_what_a_run_was_measured_on_does_not_depend_on_its_model(
    corpus: Path, tmp_path: Path
) -> None:
    def run(name: str, **changes: object) -> tuple[str, str, str]:
        changes = {"num_rounds": 1, "data_seed": 1} | changes
        return hashes(QuickRun(tmp_path / name, shared=corpus, **changes).start_here())

    one = run("one")
    assert run("shorter", max_seq_len=8, seed=5, optimiser="sgd") == one
    assert run("other split", data_seed=2)[:2] == one[:2]
    assert run("other split again", data_seed=2)[2] != one[2]
    swapped = {"train_path": str(corpus / "test.csv"), "test_path": str(corpus / "train.csv")}
    other = run("swapped", **swapped)
    assert (other[0] != one[0], other[1] != one[1]) == (True, True)
