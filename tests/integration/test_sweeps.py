"""A slot trains the runs of a sweep: each as the training command would, and each once."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import settings

from scaling_fl import read_runs, run
from scaling_fl.commands.sweeps.check import Sweep, check_sweep
from scaling_fl.commands.sweeps.runs import open_queue
from scaling_fl.commands.sweeps.slot import Slot
from scaling_fl.commands.sweeps.sweep import SweepOptions, main
from scaling_fl.config.typed import typed_words
from scaling_fl.core.errors import UserError
from scaling_fl.sweeps.entry import Entry
from scaling_fl.sweeps.placement import SlotOrders
from tests.preloaded import lasting_process

ROOT = Path(__file__).parents[2]
FILE = Path("experiments.yaml")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own; workers are forked from the process that all tests share."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Slot, "_starter", lambda *_: lasting_process())
    monkeypatch.setattr("scaling_fl.commands.train.choose_starter", lambda *_: lasting_process())
    return tmp_path


@pytest.fixture
def reports() -> Iterator[int]:
    reader, writer = os.pipe()
    yield writer
    os.close(writer)
    os.close(reader)


def experiment(corpus: Path, **changes: Any) -> dict[str, Any]:
    overrides = settings(corpus, num_rounds=2, num_clients=2)
    return {"name": "tiny", "overrides": overrides, **changes}


def put(content: Any) -> Sweep:
    """Write a file of experiments, check it and put its runs into their queue."""
    FILE.write_text(yaml.safe_dump(content))
    sweep = check_sweep(FILE, None, [])
    open_queue("sweeps", sweep.name).add(sweep.entries)
    return sweep


def serve(sweep: Sweep, reports: int, **changes: Any) -> list[Entry]:
    given: dict[str, Any] = {
        "place": "sweeps",
        "sweep": sweep.name,
        "keys": [entry.key for entry in sweep.entries],
        "logs": "logs",
        "sites": [],
        "num_slots": 1,
    }
    Slot(SlotOrders(**given | changes), reports).serve()
    return open_queue("sweeps", sweep.name).entries()


def journal_of(entry: Entry) -> list[str]:
    return Path("checkpoints", entry.job_name, "journal.jsonl").read_text().splitlines()


def digest_of(place: str) -> str:
    return str(json.loads(Path(place, "info.json").read_text())["last_digest"])


def test_runs_of_a_sweep_are_those_of_the_command_on_whatever_site(
    corpus: Path, reports: int
) -> None:
    sweep = put(experiment(corpus, seeds=2))
    done = serve(sweep, reports, sites=[3])
    assert [(entry.outcome, entry.label) for entry in done] == [
        ("done", "seed=0"),
        ("done", "seed=1"),
    ]
    for seed, entry in enumerate(done):
        alone = run(settings(corpus, num_rounds=2, num_clients=2), seed=seed, job_name=f"{seed}")
        assert digest_of(entry.run) == digest_of(alone.where)
        assert (Path(entry.run) / "report.html").exists()
    assert {result.config["job_name"] for result in read_runs()} >= {e.job_name for e in done}
    assert read_runs(done[0].run)[0].config["site_ids"] == [3]


def test_what_is_finished_is_not_run_again_even_if_its_queue_is_gone(
    corpus: Path, here: Path, reports: int
) -> None:
    sweep = put(experiment(corpus))
    (first,) = serve(sweep, reports)
    before = journal_of(first)
    (here / "sweeps").rename(here / "lost")
    (again,) = serve(put(experiment(corpus)), reports)
    assert (again.outcome, again.run) == ("done", first.run)
    assert again.key == first.key
    assert journal_of(first) == before
    longer = put(experiment(corpus, grid={"eval_every": [2]}))
    assert longer.entries[0].key != first.key, "what is recorded is another record"


def test_a_run_that_fails_is_tried_three_times_and_the_others_are_finished(
    corpus: Path, here: Path, reports: int
) -> None:
    (here / "faulty.py").write_text("def merge():\n    return lambda updates, round: 1 / 0\n")
    sweep = put(experiment(corpus, grid={"merge.method": ["faulty:merge", "mean"]}))
    bad, good = serve(sweep, reports)
    assert (bad.outcome, bad.failures, bad.starts) == ("failed", 3, 3)
    assert "ZeroDivisionError" in bad.error
    assert good.outcome == "done"


def test_a_run_that_is_refused_is_not_tried_again(corpus: Path, here: Path, reports: int) -> None:
    (here / "bad.csv").write_text("id,text,author\n1,raven,NOBODY\n")
    train = settings(corpus)["train_path"]
    content = experiment(corpus, grid={"train_path": [str(here / "bad.csv"), train]})
    del content["overrides"]["train_path"]
    bad, good = serve(put(content), reports)
    assert (bad.outcome, bad.starts) == ("failed", 1)
    assert "NOBODY" in bad.error
    assert good.outcome == "done"
    assert main(SweepOptions(name="tiny", retries_failed=True, is_adding=True)) == 0
    again = open_queue("sweeps", "tiny").entries()
    assert [(entry.outcome, entry.failures) for entry in again] == [("waiting", 0), ("done", 0)]


def test_a_run_of_other_data_than_was_put_there_is_not_trained(
    corpus: Path, here: Path, reports: int
) -> None:
    train = here / "train.csv"
    train.write_bytes(Path(settings(corpus)["train_path"]).read_bytes())
    content = experiment(corpus)
    content["overrides"]["train_path"] = str(train)
    sweep = put(content)
    with train.open("a") as file:
        file.write("id999,raven,EAP\n")
    with pytest.raises(UserError, match="must have the data and the code with which it was put"):
        serve(sweep, reports)
    (entry,) = open_queue("sweeps", "tiny").entries()
    assert (entry.outcome, entry.failures) == ("waiting", 0), "another machine may have the data"
    assert not Path("checkpoints", entry.job_name).exists()
    assert [each.key for each in put(content).entries] != [entry.key]


def test_a_run_that_is_not_worth_its_next_rounds_ends_and_the_others_go_on(
    corpus: Path, reports: int
) -> None:
    content = experiment(corpus, seeds=2)
    content["overrides"]["num_rounds"] = 50
    sweep = put(content)
    queue = open_queue("sweeps", "tiny")
    hopeless, _ = sweep.entries
    seen: list[int] = []

    class Watched(Slot):
        def _hear_round(self, event: Any, checked: Any) -> None:
            seen.append(event["round"])
            queue.prune(sweep.entries[len(seen) > 1].key)
            super()._hear_round(event, checked)

    Watched(
        SlotOrders(place="sweeps", sweep="tiny", keys=None, logs="logs", sites=[], num_slots=1),
        reports,
    ).serve()
    found = queue.entries()
    assert [entry.outcome for entry in found] == ["pruned", "pruned"]
    assert found[0].key == hopeless.key
    assert 0 < len(seen) < 50


def test_a_slot_keeps_nothing_of_a_run_open(corpus: Path, reports: int) -> None:
    """Or it could not train a thousand of them."""
    serve(put(experiment(corpus)), reports)
    open_files = [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]
    here = os.path.realpath(os.curdir)
    assert [file for file in open_files if file.startswith(here)] == []


def test_the_example_runs_as_it_is_but_for_its_size(corpus: Path, reports: int) -> None:
    file = ROOT / "configs" / "sweeps" / "merges.yaml"
    small = settings(corpus, num_rounds=1, num_clients=6) | {
        "adapter": {"targets": None, "modules_to_save": []},
        "length_grouped": False,
        "num_local_steps": 1,
        "data": {"max_train_examples": None, "max_test_examples": None},
    }
    del small["num_local_epochs"]
    sweep = check_sweep(file, None, typed_words(small))
    assert len(sweep.entries) == 18
    open_queue("sweeps", sweep.name).add(sweep.entries[::3])  # a seed of each
    done = serve(sweep, reports)
    assert [entry.outcome for entry in done] == ["done"] * 6


@pytest.mark.slow
def test_the_command_runs_a_file_and_says_what_came_of_it(
    corpus: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With slots of their own, which are processes."""
    FILE.write_text(yaml.safe_dump(experiment(corpus, seeds=2)))
    options = SweepOptions(file=FILE, parallel=2, sites=[0, 1])
    assert main(SweepOptions(file=FILE, is_dry=True)) == 0
    planned = capfd.readouterr().out
    assert "2 runs: 2 new" in planned
    assert not (here / "sweeps").exists()
    assert main(SweepOptions(file=FILE, is_adding=True)) == 0
    assert "2 runs: 2 waiting" in capfd.readouterr().out
    assert main(options) == 0
    out = capfd.readouterr().out
    assert "[2/2] begins: seed=1" in out
    assert "[2/2] finished: seed=1 (2 rounds" in out
    assert "sweep tiny, 2 runs: 2 finished" in out
    assert "--sweep tiny" in out
    logs = [file.read_text() for file in here.glob("sweeps/tiny/*/log.txt")]
    assert [log.count("round 2/2 ") for log in logs] == [1, 1]
    total = sum(result.metrics["bytes.total"] for result in read_runs())
    assert f"of {total / 1e6:.1f} MB" in planned
    assert main(SweepOptions(name="tiny")) == 0, "the queue alone is enough to go on"
    assert main(SweepOptions(file=FILE, is_dry=True)) == 0
    assert "2 runs: 2 finished\nbytes that are left: 0 bytes" in capfd.readouterr().out
    assert [result.status for result in read_runs()] == ["COMPLETED", "COMPLETED"]
