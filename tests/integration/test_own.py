"""A job whose task, merge, codec, partitioner and metric the user wrote keeps every law."""

import sys
from pathlib import Path

import pytest
from harness import Run
from one_process import QuickRun, outcome

from scaling_fl.runtime.record.checkpoints import CheckpointMismatch
from tests.own_things import EXAMPLES, OWN, write_messages


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The caller's folder, with a module and with the data of its task."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_things.py").write_text(EXAMPLES)
    write_messages(tmp_path / "messages.tsv", 40)
    return tmp_path


def test_one_worker_is_two_and_another_source_is_refused(
    corpus: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = QuickRun(folder / "one", shared=corpus, **OWN).start_here()
    two = Run(folder / "two", shared=corpus, **OWN, site_ids=[0, 1]).start()
    assert outcome(one) == outcome(two)
    steps, values = one.results()["validation.balanced_accuracy"]
    assert steps == [1, 2, 3]
    assert all(0 <= value <= 1 for value in values)
    assert one.record.partition
    sizes = [sum(row) for row in one.record.partition["histograms"]]
    assert sizes == [20, 10, 10]

    path = folder / "own_things.py"
    path.write_text(path.read_text() + "# changed\n")
    monkeypatch.delitem(sys.modules, "own_things")
    with pytest.raises(
        CheckpointMismatch, match=r"the source of own_things:\w+ must stay as it was"
    ):
        QuickRun(folder / "one", shared=corpus, **OWN, num_rounds=4).start_here()
    path.write_text(EXAMPLES)
    monkeypatch.delitem(sys.modules, "own_things")
    again = QuickRun(folder / "one", shared=corpus, **OWN, num_rounds=4).start_here()
    assert again.record.last_round == 4
