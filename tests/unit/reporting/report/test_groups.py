"""What is a group, what may be compared, and how groups are told apart."""

from pathlib import Path
from typing import Any

import pytest

from scaling_fl.reporting.report.equal_budget import budget_views
from scaling_fl.reporting.report.groups import AlikeSet, alike_sets, group_runs
from tests.made_up_runs import of, read


@pytest.fixture
def sets_of(tmp_path: Path) -> Any:
    def make(*runs: Any) -> list[AlikeSet]:
        return alike_sets(group_runs(read(runs, tmp_path)))

    return make


def labels(alike: AlikeSet) -> list[str]:
    return [group.label for group in alike.groups]


def ties(seed: int, **changes: Any) -> Any:
    return of(seed, merge={"method": "ties"}, **changes)


def test_runs_that_differ_in_nothing_but_seeds_are_a_group(sets_of: Any) -> None:
    sites = {"site_ids": [0, 1], "save_every": 2}
    (alike,) = sets_of(of(1), ties(1), of(2, **sites), ties(2), of(3))
    assert labels(alike) == ["merge.method=mean", "merge.method=ties"]
    assert [len(group.runs) for group in alike.groups] == [3, 2]
    assert [run.measured.seeds for run in alike.groups[0].runs] == [(1, 1), (2, 2), (3, 3)]


def test_a_run_that_repeats_a_seed_is_not_counted_twice(sets_of: Any) -> None:
    (alike,) = sets_of(of(1), of(2), of(1))
    (group,) = alike.groups
    numbers = [Path(run.row.run).name for run in (*group.runs, *group.repeated)]
    assert numbers == ["3", "2", "1"]
    assert len(group.runs) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"partition": {"alpha": 10.0}}, "the split differs: dirichlet_by_client, alpha 0.1, "
         "min_examples 1, 20 clients against dirichlet_by_client, alpha 10.0, min_examples 1, 20 "
         "clients"),
        ({"num_clients": 30}, "the split differs"),
        ({"test": "another"}, "the test data differs: f3a1c05b77de against another"),
        ({"task_name": "20newsgroups"}, "the task differs: 20newsgroups_topics against 20newsg"),
        ({"merge": {"method": "share_a"}, "adapter": {"kind": "lora"}},
         "the metric differs: validation.accuracy against validation.accuracy of each client's"),
    ],
)  # fmt: skip
def test_what_was_measured_otherwise_is_a_set_of_its_own(
    sets_of: Any, changes: dict[str, Any], reason: str
) -> None:
    first, second = sets_of(*(of(seed) for seed in (1, 2)), *(of(s, **changes) for s in (1, 2)))
    assert first.unlike_first == []
    assert second.unlike_first[0].startswith(reason)
    assert [len(alike.groups) for alike in (first, second)] == [1, 1]


def test_runs_of_older_versions_which_do_not_say_what_they_were_measured_on_are_not_ranked(
    sets_of: Any,
) -> None:
    first, second = sets_of(of(1, test=None), ties(1, test=None))
    assert second.unlike_first == ["the test data is not recorded"]
    assert first.unlike_first == []


def test_a_private_run_may_be_compared_though_it_hides_its_training_data(sets_of: Any) -> None:
    private = {"privacy": {"noise_multiplier": 1.0, "clip": 1.0}, "weighting": "uniform"}
    runs = [of(seed, epsilon=1.0, is_silent=True, **private) for seed in (1, 2)]
    (alike,) = sets_of(of(1), of(2), *runs)
    assert len(alike.groups) == 2


def test_other_seeds_of_the_same_measure_are_in_the_same_set(sets_of: Any) -> None:
    (alike,) = sets_of(of(1), ties(2))
    (view, *_) = budget_views(alike, None)
    assert view.reached[1].verdict == "not compared: they have no seed in common"


def test_a_run_that_did_not_end_is_shown_and_not_compared(sets_of: Any) -> None:
    (alike,) = sets_of(of(1), of(2, status="FAILED", finished=2), ties(1, status=None, finished=1))
    assert labels(alike) == [
        "merge.method=mean", "merge.method=mean [FAILED]", "merge.method=ties [DEAD]",
    ]  # fmt: skip
    for view in budget_views(alike, None):
        assert [each.group.label for each in view.reached] == ["merge.method=mean"]
        assert [why for _, why in view.left_out] == [
            "it did not come to its end (FAILED)",
            "it did not come to its end (DEAD)",
        ]


def test_labels_name_what_is_not_as_in_most_groups(sets_of: Any) -> None:
    one, other = {"learning_rate": 0.5}, {"weight_decay": 0.1}
    (alike,) = sets_of(of(1), ties(1), of(1, **one), of(1, **other))
    assert labels(alike) == [
        "as most others", "merge.method=ties", "learning_rate=0.5", "weight_decay=0.1",
    ]  # fmt: skip
