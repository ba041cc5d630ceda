"""A file of experiments is checked as a whole, before any run begins."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from scaling_fl.commands.endings import Misused
from scaling_fl.commands.sweeps.check import Sweep, check_name, check_point, check_sweep, repeats
from scaling_fl.sweeps.experiments import ExperimentsError

BASE = {"task_name": "20newsgroups", "model": "tiny", "num_clients": 4}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(content: Any, *words: str, name: str | None = None) -> Sweep:
    file = Path("rates.yaml")
    file.write_text(yaml.safe_dump(content))
    return check_sweep(file, name, words)


def test_every_run_has_a_name_of_its_own_and_is_read_again_from_its_words() -> None:
    sweep = check({"overrides": BASE, "seeds": 2}, "num_rounds=7", name="mine")
    assert sweep.name == "mine"
    assert [entry.label for entry in sweep.entries] == ["seed=0", "seed=1"]
    for entry, config in zip(sweep.entries, sweep.configs, strict=True):
        assert entry.job_name == config.job_name == f"mine-{entry.key[:12]}"
        assert config.num_rounds == 7
    assert [config.seed for config in sweep.configs] == [0, 1]
    assert len({entry.key for entry in sweep.entries}) == 2


def test_a_folder_of_checkpoints_is_that_of_all_runs() -> None:
    sweep = check({"overrides": BASE | {"checkpoints_dir": "s3://bucket/all/"}, "seeds": 2})
    assert [config.checkpoints_dir for config in sweep.configs] == [
        f"s3://bucket/all/{entry.job_name}" for entry in sweep.entries
    ]


def test_all_problems_of_all_runs_are_told_at_once_each_by_its_run() -> None:
    content = {
        "overrides": BASE | {"learning_rte": 0.1},
        "grid": {"optimiser": ["adamw", "adanw"], "batch_size": [8, 0]},
        "zip": {"seed": []},
    }
    with pytest.raises(ExperimentsError) as refused:
        check([content, content | {"zip": {}}])
    assert str(refused.value).splitlines() == [
        "4 problems in rates.yaml:",
        "[0].zip.seed must have a value, got an empty list; give some, or leave it out.",
        "all 4 runs: learning_rte must be a known setting, got 0.1; use learning_rate.",
        "batch_size=8 optimiser=adanw; batch_size=0 optimiser=adanw: optimiser must be one of sgd, "
        "adam, adamw, adamw_8bit, paged_adamw_8bit, got 'adanw'; use optimiser=adamw.",
        "batch_size=0 optimiser=adamw; batch_size=0 optimiser=adanw: batch_size must be at least "
        "1, got 0; give such a value or leave batch_size at 32.",
    ]


def test_a_run_that_computes_what_another_one_does_is_left_out_and_named() -> None:
    sweep = check({"overrides": BASE, "grid": {"num_threads": [1, 2], "seed": [0, 1]}})
    assert [entry.label for entry in sweep.entries] == [
        "num_threads=1 seed=0",
        "num_threads=1 seed=1",
    ]
    assert list(repeats(sweep)) == [
        f"num_threads=2 seed={seed} computes the same as num_threads=1 seed={seed}, and is left out"
        for seed in (0, 1)
    ]


def test_the_sweep_names_its_jobs() -> None:
    with pytest.raises(ExperimentsError, match="job_name must be left to the sweep"):
        check({"overrides": BASE | {"job_name": "mine"}})


@pytest.mark.parametrize("name", ["", "a b", "-x", "a/b", "x" * 81, "a[0]"])
def test_a_sweep_has_a_plain_name(name: str) -> None:
    with pytest.raises(Misused, match="--name must be letters"):
        check_name(name)


def test_a_search_has_a_run_to_start_from_and_a_run_for_each_point() -> None:
    rates = {"learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
    sweep = check({"overrides": BASE, "search": {"ranges": rates, "trials": 5}})
    assert len(sweep.entries) == 1
    entry = check_point(sweep, {"learning_rate": 0.01})
    assert entry.label == "learning_rate=0.01"
    assert entry.key == check({"overrides": BASE | {"learning_rate": 0.01}}).entries[0].key


def test_the_ends_of_ranges_are_checked_before_any_run_begins() -> None:
    ranges = {"learning_rate": {"low": -1.0, "high": 0.1}, "optimiser": ["adamw", "adanw"]}
    with pytest.raises(ExperimentsError) as refused:
        check({"overrides": BASE, "search": {"ranges": ranges, "trials": 5}})
    told = str(refused.value)
    assert "search learning_rate=-1.0; " in told
    assert ": learning_rate must be greater than 0, got -1.0" in told
    assert "search optimiser=adanw: optimiser must be one of" in told


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            {"seeds": 2, "search": {"ranges": {"seed": [1]}, "trials": 2}},
            "search must choose all points of the only experiment of a file, got one beside seeds",
        ),
        (
            {"search": {"ranges": {"model": ["tiny", "minilm"]}, "trials": 2}},
            "search.ranges.model must vary here alone, and is in overrides, too",
        ),
        ({"search": {"ranges": {"seed": [1]}}}, "search.trials must be as docs/comparing.md says"),
    ],
)
def test_a_search_that_cannot_be_is_refused(content: dict[str, Any], problem: str) -> None:
    with pytest.raises(ExperimentsError, match=problem):
        check({"overrides": BASE} | content)
