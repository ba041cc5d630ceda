"""What a file of experiments means: which runs, what they are called, and what is wrong with it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from scaling_fl.config.typed import read_typed
from scaling_fl.sweeps.experiments import (
    Experiments,
    ExperimentsError,
    read_experiments,
)
from scaling_fl.sweeps.labels import label_points


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rates.yaml"


def read(file: Path, content: Any, *words: str) -> Experiments:
    file.write_text(
        content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
    )
    return read_experiments(file, words)


def settings(found: Experiments) -> list[dict[str, Any]]:
    """Read the words of every run as the training command would."""
    return [read_typed(point.words, ()).settings for point in found.points]


def test_the_list_of_the_merging_fork_is_a_run_for_each_item(file: Path) -> None:
    found = read(
        file,
        """
        - config: demo
          overrides: {num_rounds: 5, merge: {method: ties, density: 0.2}}
        - config: [demo]
          overrides: {merge.method: mean}
        """,
    )
    assert found.problems == []
    assert found.name == "rates"
    first, second = settings(found)
    assert first["num_rounds"] == 5
    assert first["merge"] == {"method": "ties", "density": 0.2}
    assert second["merge"] == {"method": "mean"}
    assert first["model"] == second["model"] == "minilm", "both start from demo"


def test_a_grid_has_every_combination_and_a_zip_its_rows(file: Path) -> None:
    found = read(
        file,
        {
            "name": "mixed",
            "grid": {"learning_rate": [0.1, 0.01], "server.momentum": [0.0, 0.9]},
            "zip": {"batch_size": [8, 16], "num_local_steps": [20, 10]},
            "seeds": 3,
        },
    )
    assert found.name == "mixed"
    rows = [
        (
            s["learning_rate"],
            s["server"]["momentum"],
            s["batch_size"],
            s["num_local_steps"],
            s["seed"],
        )
        for s in settings(found)
    ]
    assert len(rows) == len(set(rows)) == 2 * 2 * 2 * 3
    assert {row[2:4] for row in rows} == {(8, 20), (16, 10)}
    assert {row[4] for row in rows} == {0, 1, 2}
    assert [row[4] for row in rows[:3]] == [0, 1, 2], "the seeds of one setting come together"


def test_what_varies_may_be_a_section_or_where_runs_start(file: Path) -> None:
    merges = [{"method": "mean"}, {"method": "ties", "density": 0.3}]
    found = read(file, {"grid": {"merge": merges, "config": ["demo", "configs/flasc_4.yaml"]}})
    assert [point.words for point in found.points] == [
        ["demo", "merge.method=mean"],
        ["configs/flasc_4.yaml", "merge.method=mean"],
        ["demo", "merge.method=ties", "merge.density=0.3"],
        ["configs/flasc_4.yaml", "merge.method=ties", "merge.density=0.3"],
    ]
    assert label_points(found.points)[2:] == [
        "demo merge.method=ties merge.density=0.3",
        "flasc_4 merge.method=ties merge.density=0.3",
    ]


def test_values_are_read_as_they_are_written(file: Path) -> None:
    """A number stays one, a text that looks like a number stays a text."""
    values = [1, 1.5, True, None, "1e-3", "1.0", "it's", [1, 2], "a b", {"x": 1}]
    overrides = {f"data.x{number}": value for number, value in enumerate(values)}
    (found,) = settings(read(file, [{"overrides": overrides}]))
    assert [found["data"][f"x{number}"] for number in range(len(values))] == values


def test_labels_say_what_differs_and_nothing_else(file: Path) -> None:
    found = read(
        file,
        [
            {"overrides": {"num_rounds": 5, "learning_rate": 0.1}},
            {"overrides": {"num_rounds": 5, "learning_rate": 0.2, "merge.method": "ties"}},
        ],
    )
    assert label_points(found.points) == [
        "learning_rate=0.1",
        "learning_rate=0.2 merge.method=ties",
    ]
    assert label_points(read(file, {"config": "configs/ties.yaml"}).points) == ["ties"]


def test_runs_of_named_experiments_are_told_apart_within_these(file: Path) -> None:
    found = read(
        file,
        [
            {"name": "plain", "overrides": {"num_rounds": 3}, "seeds": 2},
            {"name": "long", "overrides": {"num_rounds": 9}},
        ],
    )
    assert label_points(found.points) == ["plain seed=0", "plain seed=1", "long"]


WRONG: dict[str, tuple[Any, str]] = {
    "unknown key": (
        {"gird": {}},
        "gird must be one of name, config, overrides, grid, zip, seeds, search, got gird; use "
        "grid.",
    ),
    "empty list": (
        {"grid": {"seed": []}},
        "grid.seed must have a value, got an empty list; give some, or leave it out.",
    ),
    "no list": (
        {"grid": {"seed": 3}},
        "grid.seed must be a list of values, got 3; write seed: [3].",
    ),
    "no mapping": (
        {"grid": [1]},
        "grid must be a mapping of settings, got [1]; write grid: {num_rounds: 5}.",
    ),
    "lengths": (
        {"zip": {"seed": [1, 2], "batch_size": [8]}},
        "zip must have lists of one length, got 2 of seed and 1 of batch_size; give one value of "
        "each for every run.",
    ),
    "no seed": (
        {"seeds": 0},
        "seeds must be a number of seeds, or a list of them, got 0; write seeds: 3 or "
        "seeds: [1, 2].",
    ),
    "config": (
        {"config": 3},
        "config must be a named configuration or a file, or a list of them, got 3; write it as "
        "after with.",
    ),
    "varied twice": (
        {"seeds": 2, "grid": {"seed": [1]}},
        "seed must vary here alone, and is in what else varies, too, got seed; leave one of them "
        "out.",
    ),
    "overrides": (
        {"grid": {"merge": [{"method": "ties"}]}, "overrides": {"merge.method": "mean"}},
        "merge.method must vary here alone, and is in overrides, too, got merge.method; leave one "
        "of them out.",
    ),
    "no experiment": (
        [3],
        "[0] must be a mapping such as {config: demo, overrides: {num_rounds: 5}}, got 3; write "
        "one.",
    ),
    "of a list": (
        [{}, {"grid": {"seed": []}}],
        "[1].grid.seed must have a value, got an empty list; give some, or leave it out.",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_by_its_place(file: Path, name: str) -> None:
    content, problem = WRONG[name]
    assert [str(each) for each in read(file, content).problems] == [problem]


def test_all_problems_are_told_at_once_and_sound_experiments_still_have_runs(file: Path) -> None:
    found = read(file, [{"seeds": -1, "grid": {"a": []}}, {"config": "demo"}, {"zipp": 1}])
    assert len(found.problems) == 3
    assert [point.words for point in found.points] == [["demo"]]


def test_what_is_typed_for_all_runs_must_not_vary(file: Path) -> None:
    found = read(file, {"grid": {"learning_rate": [0.1, 0.2]}}, "demo", "learning_rate=0.3")
    assert "is in what is typed after with, too" in str(found.problems[0])
    assert read(file, {"seeds": 2}, "demo", "learning_rate=0.3").problems == []


NOTHING = {
    "": "rates.yaml must hold an experiment, such as {config: demo, seeds: 3}, or a list of them, "
    "got nothing; correct it.",
    "7": "or a list of them, got 7; correct it.",
    "a: 1\na: 2": "line 2 must be YAML, got a twice; correct the file.",
}


@pytest.mark.parametrize("content", NOTHING)
def test_a_file_that_holds_no_experiments_is_refused(file: Path, content: str) -> None:
    with pytest.raises(ExperimentsError) as refused:
        read(file, content)
    assert str(refused.value).endswith(NOTHING[content])


def test_a_file_that_is_not_there_is_refused(file: Path) -> None:
    with pytest.raises(ExperimentsError, match="--config-list must be a file that can be read"):
        read_experiments(file)
