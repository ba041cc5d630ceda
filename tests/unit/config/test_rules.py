"""Settings that exclude each other, or that others need, are told in one sentence each."""

from pathlib import Path
from typing import Any

import pytest

from scaling_fl.config import NOISE_SECRET
from tests.unit.config.settings import (
    GROUPS,
    LORA,
    PACKAGED,
    PRIVATE,
    only_problem,
    problems,
    with_tiers,
)

COUNTS: list[tuple[dict[str, Any], str]] = [
    ({"site_ids": [0, 1], "clients_per_round": 3}, "clients_per_round"),
    ({"site_ids": [0, 1], "min_clients": 3}, "min_clients"),
    ({"num_clients": 4, "sampling": "poisson"}, "sampling"),
    ({"num_clients": 4, "clients_per_round": 0.5, "min_clients": 3}, "min_clients"),
    ({"num_clients": 1, "scaffold": True}, "scaffold"),
    ({"num_clients": 4, "clients": [2], "scaffold": True}, "scaffold"),
    ({"num_clients": 4, "cohorts": [[2], [2]], "scaffold": True}, "scaffold"),
    ({"site_ids": []}, "site_ids"),
    ({"site_ids": [0, -1]}, "site_ids[1]"),
    ({"site_ids": 4}, "site_ids"),
    ({"clients_per_round": 1.5}, "clients_per_round"),
    ({"clients_per_round": 0}, "clients_per_round"),
]


OF_ROUNDS: list[tuple[str, dict[str, Any], str]] = [
    ("trimmed_mean", {"trim": 0.2}, "0.2 with 4 clients in a round; raise merge.trim"),
    ("krum", {"byzantine": 1}, "1 with 4 clients in a round; lower merge.byzantine"),
    ("multikrum", {"byzantine": 0, "selected": 4}, "4 with 4 clients in a round; lower"),
    ("consensus_mask", {"agreeing": 5}, "5 with 4 clients in a round; lower merge.agreeing"),
]
LARGER: dict[str, dict[str, Any]] = {
    "all": {"num_clients": 5},
    "sampled": {"num_clients": 9, "clients_per_round": 5},
    "expected": {"num_clients": 9, "clients_per_round": 5, "sampling": "poisson"},
    "listed": {"num_clients": 9, "cohorts": [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]},
}


@pytest.mark.parametrize(("method", "options", "got"), OF_ROUNDS)
def test_what_a_merge_asks_of_a_round_its_clients_can_be(
    method: str, options: dict[str, Any], got: str
) -> None:
    merge = {"merge": {"method": method, **options}}
    for size in ({"num_clients": 4}, {"num_clients": 9, "clients_per_round": 4}):
        assert f", got {got}" in only_problem({**size, **merge})
    for size in LARGER.values():
        assert problems({**PACKAGED, **size, **merge}) == []


def test_a_merge_asks_the_smallest_listed_round_what_it_withstands() -> None:
    rounds = {"num_clients": 9, "cohorts": [[0, 1, 2, 3, 4], [5, 6]]}
    for method, options in (("trimmed_mean", {"trim": 0.2}), ("consensus_mask", {"agreeing": 5})):
        assert problems({**PACKAGED, **rounds, "merge": {"method": method, **options}}) == []
    found = only_problem({**rounds, "merge": {"method": "krum"}})
    assert "got 1 with 2 to 5 clients in a round; " in found
    assert not problems({**PACKAGED, **rounds, "merge": {"method": "krum", "byzantine": 0}})


def test_clients_must_add_up() -> None:
    assert [only_problem(mapping).split(" must ")[0] for mapping, _ in COUNTS] == [
        path for _, path in COUNTS
    ]


def test_on_several_nodes_only_a_given_number_of_clients_is_known() -> None:
    assert problems({**PACKAGED, "clients_per_round": 3}, num_nodes=2) == []
    assert only_problem({"clients_per_round": 3, "num_clients": 2}, num_nodes=2)


@pytest.mark.parametrize("task", ["agnews", "yelp", "spooky_author"])
def test_tasks_read_from_files_need_both_files(task: str, tmp_path: Path) -> None:
    found = problems({"task_name": task})
    assert [problem.split()[0] for problem in found] == ["train_path", "test_path"]
    file = tmp_path / "data.csv"
    assert "must name an existing file, got" in "".join(
        problems({"task_name": task, "train_path": str(file), "test_path": str(file)})
    )
    file.touch()
    assert not problems({"task_name": task, "train_path": str(file), "test_path": "gs://b/t.csv"})


def test_one_data_file_alone_is_refused(tmp_path: Path) -> None:
    found = only_problem({"task_name": "imdb", "train_path": str(tmp_path)})
    assert found.startswith("test_path must be given when the other one is")


def test_privacy_needs_clients_that_count_alike() -> None:
    problem = only_problem({"privacy": {"clip": 1.0}})
    assert problem.startswith("weighting must be uniform with privacy.clip")
    assert "got 'examples' with privacy.clip=1.0" in problem


TURNS = LORA | {"merge": {"method": "alternate"}}
NOISE = {"clip": 1.0, "noise_multiplier": 1.0}
POISSON = {"clients_per_round": 2, "sampling": "poisson"}
KEPT = LORA | {"merge": {"method": "share_a"}}
SENTENCES: list[tuple[dict[str, Any], str]] = [
    (
        with_tiers({"download": {"density": 0.5}}),
        "tiers must be two or more, got [{'download': {'density': 0.5}}]; give the settings "
        "of the only tier to all clients instead.",
    ),
    (
        with_tiers({"rank": 4}, {}, adapter={"kind": "head"}),
        "tiers[].rank must be left alone unless adapter.kind is lora or dora, got [4] with "
        "adapter.kind=head; set adapter.kind=lora or dora, or drop tiers[].rank.",
    ),
    (
        with_tiers({"rank": 4}, {"rank": 16}),
        "tiers[].rank must be adapter.rank in one tier, and more in none, got [4, 16] with "
        "adapter.rank=8; set adapter.rank to the largest of them.",
    ),
    (
        with_tiers({"rank": 4}, {"rank": 2}),
        "tiers[].rank must be adapter.rank in one tier, and more in none, got [4, 2] with "
        "adapter.rank=8; set adapter.rank to the largest of them.",
    ),
    (
        with_tiers({"share": 0.5}, {"share": 0.25}, {"rank": 4, "share": 0.25}),
        "tiers must differ from each other in more than their share and their clients, got "
        "[{'share': 0.5}, {'share': 0.25}, {'rank': 4, 'share': 0.25}]; drop a tier that "
        "equals another one, or change its settings.",
    ),
    (
        {**LORA, "download": {"density": 0.5}, "upload": {"codec": "nf4", "values": "state"}},
        "upload.values must be update when clients receive a part of the state, because the "
        "server would replace the other part by what clients trained from nothing, got "
        "'state' with download.density=0.5; drop upload.values or download.density.",
    ),
    (
        {
            "num_clients": 4,
            "min_clients": 2,
            "weighting": "uniform",
            "privacy": {"clip": 1.0, "noise_multiplier": 1.0},
        },
        "min_clients must be 1 with noise, because a run that ends for lack of clients tells "
        "whose data made them fail, got 2 with privacy.clip=1.0; drop min_clients or the "
        "noise.",
    ),
    (
        with_tiers({"rank": 4, "share": 0.5}, {}),
        "tiers[].share must be given for every tier or for none, got [0.5]; give every tier "
        "its share.",
    ),
    (
        with_tiers({"rank": 4, "share": 0.5}, {"share": 0.4}),
        "tiers[].share must add up to 1, got [0.5, 0.4]; correct the shares.",
    ),
    (
        with_tiers({"rank": 4, "share": 0.5, "clients": [0, 1]}, {"share": 0.5, "clients": [2, 3]}),
        "tiers[].share must be left alone when tiers list their clients, got [0.5, 0.5] with "
        "tiers[].clients=[[0, 1], [2, 3]]; give one of the two.",
    ),
    (
        with_tiers({"rank": 4, "clients": [0, 1]}, {"clients": [1, 2, 3]}),
        "tiers[].clients must name each client from 0 to 3 once, got [[0, 1], [1, 2, 3]]; "
        "correct the lists or num_clients.",
    ),
    (
        with_tiers({"rank": 4, "clients": [0, 1]}, {"clients": [3]}),
        "tiers[].clients must name each client from 0 to 3 once, got [[0, 1], [3]]; correct "
        "the lists or num_clients.",
    ),
    (
        {"num_clients": 4, "clients": [1, 4]},
        "clients must name different clients from 0 to 3, got [1, 4]; correct the list or "
        "raise num_clients.",
    ),
    (
        {"num_clients": 4, "cohorts": [[0, 1], [2, 2]]},
        "cohorts must name different clients from 0 to 3, got [2, 2]; correct the list or "
        "raise num_clients.",
    ),
    (
        PRIVATE
        | {
            "upload": {"error_feedback": True, "codec": "nf4"},
            "privacy": {"clip": 1.0, "noise_multiplier": 1.0},
        },
        "upload.error_feedback must be False with noise, because epsilon holds only for "
        "clients that keep nothing from one round to another, got True with privacy.clip=1.0;"
        " drop upload.error_feedback or the noise.",
    ),
    (
        PRIVATE | {"cohorts": [[0, 1], [2]], "privacy": {"clip": 1.0}},
        "cohorts must have the same number of clients in every round with privacy.clip, "
        "because the sum is divided by a fixed number, got [[0, 1], [2]] with "
        "privacy.clip=1.0; list equally many clients for every round.",
    ),
    (
        PRIVATE | {"upload": {"codec": "nf4"}, "privacy": GROUPS},
        "upload must be exact with privacy.unit=group, because a codec or a density changes a"
        " client's sum after the updates of its groups were clipped, got {'codec': 'nf4'} "
        "with privacy.unit=group; drop the settings of upload, or protect clients "
        "(privacy.unit=client).",
    ),
    (
        with_tiers({"upload": {"density": 0.5}}, {}, weighting="uniform", privacy=GROUPS),
        "tiers[].upload must be exact with privacy.unit=group, because a codec or a density "
        "changes a client's sum after the updates of its groups were clipped, got "
        "[{'density': 0.5}] with privacy.unit=group; drop the settings of tiers[].upload, or "
        "protect clients (privacy.unit=client).",
    ),
    (
        PRIVATE | {"download": {"density": 0.5}, "client_freeze": True, "privacy": GROUPS},
        "client_freeze must be False with privacy.unit=group, because updates of groups are "
        "clipped before coordinates are left out, got True with privacy.unit=group; drop "
        "client_freeze or protect clients (privacy.unit=client).",
    ),
    (
        with_tiers({"rank": 4}, {}, weighting="uniform", privacy=GROUPS),
        "tiers[].rank must be left alone with privacy.unit=group, because updates of groups "
        "are clipped before coordinates are left out, got [4] with privacy.unit=group; drop "
        "the ranks or protect clients (privacy.unit=client).",
    ),
    (
        PRIVATE | {"privacy": GROUPS | {"groups_per_round": 5}},
        "privacy.groups_per_round must be at most privacy.groups_per_client, got 5 with "
        "privacy.groups_per_client=4; lower privacy.groups_per_round or raise "
        "privacy.groups_per_client.",
    ),
    (
        {"adapter": {"kind": "lora", "freeze_a": True}, "merge": {"method": "alternate"}},
        "merge.method must be another one unless A and B of an adapter are trained, which it tells"
        " apart, got 'alternate' with adapter.kind=lora and adapter.freeze_a=True; set "
        "adapter.kind=lora or dora, leave adapter.freeze_a alone, or change merge.method.",
    ),
    (
        TURNS | {"client_freeze": True, "download": {"density": 0.5}},
        "merge.method must be another one with client_freeze, because both of them say what a "
        "client changes, got 'alternate' with client_freeze=True; drop client_freeze or change "
        "merge.method.",
    ),
    (
        KEPT | {"upload": {"density": 0.5, "keep_heads": True}},
        "upload.keep_heads must be left alone where the heads stay with the clients, got "
        "True with merge.method=share_a; drop upload.keep_heads or change merge.method.",
    ),
    (
        with_tiers({"rank": 2}, {}, merge={"method": "share_a"}, tier_ranks="largest"),
        "tier_ranks must be left alone where the columns of B, which it compares, stay with the "
        "clients, got 'largest' with merge.method=share_a; drop tier_ranks or change merge.method.",
    ),
    (
        TURNS | {"server": {"optimiser": "adam"}},
        "server.optimiser must not correct its means where A and B step every other round, because "
        "the correction counts all rounds, got 'adam' with server.bias_correction=None and "
        "merge.method=alternate; set server.bias_correction=False, or change server.optimiser or "
        "merge.method.",
    ),
    (
        {"stop_when": {"metric": "validation.f1_macro", "target": 75}},
        "stop_when.target must be above 0 and at most 1 for a score, got 75.0 with "
        "stop_when.metric=validation.f1_macro; give such a share or another stop_when.metric.",
    ),
    (
        PRIVATE | {"privacy": NOISE, "stop_when": {"seconds": 60}},
        "stop_when.seconds must be left alone with noise, because the number of rounds would tell "
        "how long they took, which depends on the data and is not covered by epsilon, got 60.0 "
        "with privacy.clip=1.0; drop stop_when.seconds or the noise.",
    ),
    (
        PRIVATE | {"privacy": NOISE, "stop_when": {"metric": "train.loss", "target": 1}},
        "stop_when.metric must be one of the test data with noise, because what clients report of "
        "their training is not covered by epsilon and not recorded, got 'train.loss' with "
        "privacy.clip=1.0; take validation.loss or drop the noise.",
    ),
    (
        PRIVATE | POISSON | {"privacy": NOISE, "stop_when": {"bytes": 10**9}},
        "stop_when.bytes must be left alone when secret draws decide the bytes of a round, which "
        "nobody knows before, got 1000000000 with noise, sampling=poisson and 1 tiers; drop "
        "stop_when.bytes, the noise, or sampling=poisson and tiers.",
    ),
]


def test_a_rule_between_settings_is_told_in_one_sentence() -> None:
    found = [problems({**PACKAGED, **mapping}) for mapping, _ in SENTENCES]
    assert found == [[sentence] for _, sentence in SENTENCES]


ACCEPTED: list[dict[str, Any]] = [
    with_tiers({"rank": 1}, {"rank": 4}, {}),
    with_tiers({"rank": 8}, {"download": {"density": 0.5}}),
    with_tiers({"share": 1 / 3}, {"share": 2 / 3, "rank": 2}),
    with_tiers({"clients": [3, 0]}, {"clients": [1, 2], "num_local_steps": 3}),
    with_tiers({"rank": 2}, {}, tier_ranks="largest", merge={"method": "mean_of_senders"}),
    with_tiers(
        {"upload": {"density": 0.5}},
        {"upload": {"codec": "nf4"}},
        upload={"error_feedback": True},
    ),
    with_tiers({"download": {"density": 0.5}}, {}, client_freeze=True, server_freeze=True),
    with_tiers({"num_local_steps": 5}, {}, num_local_steps=1, momentum=0.9),
    with_tiers({"num_local_steps": 5}, {}, num_local_epochs=3, prox_mu=0.1),
    PRIVATE | {"privacy": GROUPS | {"groups_per_round": 4, "noise_multiplier": 1.0}},
    PRIVATE | {"sampling": "poisson", "clients_per_round": 2},
    PRIVATE | {"privacy": {"clip": 1.0, "target_quantile": 0.5, "clip_learning_rate": 0.3}},
    PRIVATE | {"cohorts": [[0, 1], [2, 3]], "privacy": {"clip": 1.0}},
    PRIVATE | {"clients_per_round": 2, "privacy": NOISE, "stop_when": {"bytes": 10**9}},
    PRIVATE | POISSON | {"privacy": {"clip": 1.0}, "stop_when": {"bytes": 10**9, "seconds": 60}},
    PRIVATE | {"privacy": NOISE, "stop_when": {"metric": "validation.loss", "target": 1}},
]


def test_tiers_cohorts_and_groups_that_add_up_are_accepted() -> None:
    found = [problems({**PACKAGED, **mapping}) for mapping in ACCEPTED]
    assert found == [[] for _ in ACCEPTED]


def test_a_wrong_tier_does_not_make_what_needs_it_wrong() -> None:
    mapping = with_tiers(
        {}, {"rank": 0, "download": {"density": 0.5}, "upload": {"density": 0.5}},
        client_freeze=True, server_freeze=True, merge={"method": "mean_of_senders"},
        upload={"error_feedback": True},
    )  # fmt: skip
    assert only_problem(mapping).startswith("tiers[1].rank must")


@pytest.mark.parametrize("noise", [{"noise_multiplier": 1.0}, {"target_epsilon": 8.0}])
def test_a_run_with_noise_needs_its_secret_before_anything_starts(noise: dict[str, float]) -> None:
    private = {**PACKAGED, **PRIVATE, "privacy": {"clip": 1.0, **noise}}
    for environ in ({}, {NOISE_SECRET: "k" * 31}):
        (problem,) = problems(private, environ=environ)
        assert problem.startswith(f"{NOISE_SECRET} must have at least 32 characters in the ")
        assert "openssl rand -hex 32" in problem
        assert "kk" not in problem
    assert not problems(private, environ={NOISE_SECRET: "k" * 32})
    assert not problems(private)  # to plan a run needs no secret
    assert not problems({**PACKAGED, **PRIVATE, "privacy": {"clip": 1.0}}, environ={})
