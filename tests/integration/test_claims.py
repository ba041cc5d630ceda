"""The claims that come with the project: each has the runs that it speaks of, and can be tried."""

import re
from pathlib import Path

import pytest

from scaling_fl.commands.claims import names, read_claim
from scaling_fl.commands.endings import Misused
from scaling_fl.commands.reproduce import ReproduceOptions, main
from scaling_fl.commands.run_query import RunCondition, read_condition
from scaling_fl.commands.sweeps.check import check_sweep
from scaling_fl.config import Config
from scaling_fl.core.errors import UserError
from scaling_fl.reporting.run_rows import RunRow, flat

SMALL = [
    *("model=tiny", "adapter.kind=lora", "num_rounds=2", "eval_every=1", "num_threads=1"),
    *("device=cpu", "data.max_train_examples=400", "data.max_test_examples=40"),
]


def row(config: Config) -> RunRow:
    return RunRow(
        run="", job="", status="", task="", rounds=0, num_rounds=0, bytes=0, epsilon=None,
        seconds=None, message=None, stopped_by=None, started=None, host=None,
        settings=dict(flat(config.model_dump(mode="json"))), metrics={},
    )  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_each_group_of_a_claim_has_as_many_runs_as_the_other(name: str) -> None:
    file, claim = read_claim(name)
    sweep = check_sweep(file, "tried", [], within="runs")
    rows = [row(config) for config in sweep.configs]

    def meeting(texts: list[str]) -> list[RunRow]:
        conditions: list[RunCondition] = [read_condition(text, "a claim") for text in texts]
        return [each for each in rows if all(condition.holds(each) for condition in conditions)]

    for each in claim.expect:
        ours, theirs = meeting(each.ours), meeting(each.theirs)
        assert len(ours) == len(theirs) == 3, each.says
        seeds = [[(r.settings["seed"], r.settings["data_seed"]) for r in g] for g in (ours, theirs)]
        assert seeds[0] == seeds[1]
    assert sweep.repeated == []


@pytest.mark.slow
@pytest.mark.usefixtures("own_signals")
def test_a_claim_is_tried_and_tried_again_without_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ReproduceOptions(claim="nf4", words=[*SMALL, "clients_per_round=2"])
    assert main(options) == 0
    first = capsys.readouterr().out
    assert "6 runs: 6 finished" in first
    assert re.search(r"0\.14\d\d of the bytes; at most 0\.1417 is claimed", first)
    assert "cannot be told here: NF4 both ways is at most 1 point less accurate" in first
    page = (tmp_path / "reproduce-nf4" / "index.html").read_text()
    assert "The claim" in page
    assert "arXiv 2411.03730" in page
    assert main(options) == 0
    assert len(list((tmp_path / "runs").glob("*/run.json"))) == 6


def test_a_claim_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misused, match=r"must be one of clients, flasc, .*got nope"):
        read_claim("nope")
    file = tmp_path / "mine.yaml"
    file.write_text("title: a\nsource: b\nruns: []\nexpect: [{says: c, ours: [], theirs: []}]\n")
    with pytest.raises(UserError, match=r"expect\.0: must have gain or traffic"):
        read_claim(str(file))
    file.write_text("title: [\n")
    with pytest.raises(UserError, match="must be YAML"):
        read_claim(str(file))
