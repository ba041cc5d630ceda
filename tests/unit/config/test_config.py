"""The configuration: every problem at once, under its dotted path, before anything runs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacred.config.custom_containers import ReadOnlyDict, ReadOnlyList

from scaling_fl.config import NAMED, Config, ConfigurationError, defaults, describe, read_config
from scaling_fl.config.rules import NO_EFFECT, value_at
from scaling_fl.config.schema import leaves

PATHS = [path for path, _ in leaves(defaults())]
SECTIONS = [name for name, value in defaults().items() if isinstance(value, dict)]
PACKAGED = {"task_name": "20newsgroups_topics"}


def nested(path: str, value: Any) -> dict[str, Any]:
    section, _, name = path.rpartition(".")
    return {section: {name: value}} if section else {name: value}


def merged(*mappings: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for mapping in mappings:
        for key, value in mapping.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def problems(mapping: dict[str, Any], **options: Any) -> list[str]:
    try:
        read_config(mapping, **options)
    except ConfigurationError as error:
        return [str(problem) for problem in error.problems]
    return []


def only_problem(mapping: dict[str, Any], **options: Any) -> str:
    (problem,) = problems({**PACKAGED, **mapping}, **options)
    return problem


@pytest.mark.parametrize("path", [*PATHS, *SECTIONS])
@pytest.mark.parametrize("wrong", [{"deeper": 1}, [[]], object(), 1j], ids=str)
def test_every_setting_refuses_a_value_of_no_known_type(path: str, wrong: Any) -> None:
    found = problems({**PACKAGED, **nested(path, wrong)})
    assert any(problem.startswith((f"{path} must", f"{path}[", f"{path}.")) for problem in found)


NUMBERS = [path for path, value in leaves(defaults()) if type(value) in (int, float)]
COUNTS = [path for path, value in leaves(defaults()) if type(value) is int]


@given(path=st.sampled_from(NUMBERS), wrong=st.booleans() | st.text() | st.integers().map(str))
def test_truth_values_and_text_are_not_numbers(path: str, wrong: Any) -> None:
    assert [p for p in problems({**PACKAGED, **nested(path, wrong)}) if p.startswith(path)]


@given(path=st.sampled_from(COUNTS), wrong=st.floats() | st.integers(max_value=-1))
def test_fractions_and_negative_numbers_are_not_counts(path: str, wrong: Any) -> None:
    assert [p for p in problems({**PACKAGED, **nested(path, wrong)}) if p.startswith(path)]


@pytest.mark.parametrize("path", NUMBERS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_numbers_are_finite(path: str, wrong: float) -> None:
    assert [p for p in problems({**PACKAGED, **nested(path, wrong)}) if p.startswith(path)]


@given(
    paths=st.lists(st.sampled_from(PATHS), min_size=2, max_size=6, unique=True),
    wrong=st.sampled_from([{"a": 1}, 1j]),
)
def test_all_wrong_settings_are_reported_together(paths: list[str], wrong: Any) -> None:
    found = problems(merged(PACKAGED, *(nested(path, wrong) for path in paths)))
    for path in paths:
        assert any(problem.startswith((f"{path} ", f"{path}.", f"{path}[")) for problem in found)


def test_a_wrong_type_does_not_hide_a_broken_rule() -> None:
    found = problems(
        {**PACKAGED, "num_rounds": "five", "nosuch": 1, "momentum": 0.9, "optimiser": "adam"}
    )
    assert [problem.split()[0] for problem in found] == ["num_rounds", "nosuch", "momentum"]


def test_the_error_text_counts_the_problems_and_gives_each_a_line() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_config({**PACKAGED, "momentum": 0.9, "optimiser": "adam", "batch_size": 0})
    assert str(caught.value).splitlines() == [
        "2 problems in the configuration:",
        "batch_size must be at least 1, got 0; give such a value or leave batch_size at 32.",
        "momentum must be 0 unless optimiser is sgd, got 0.9 with optimiser=adam;"
        " set optimiser=sgd or leave momentum at 0.",
    ]


def test_a_setting_that_is_wrong_itself_is_not_judged_by_the_rules_between_settings() -> None:
    assert only_problem({"optimiser": "adan", "momentum": 0.9}).startswith("optimiser must be one")


@pytest.mark.parametrize(
    ("mapping", "suggestion"),
    [
        ({"num_round": 3}, "use num_rounds."),
        ({"schedule": {"knd": "linear"}}, "use schedule.kind."),
        ({"alpha": 0.1}, "use adapter.alpha or partition.alpha."),
        ({"optimizer": "adam"}, "use optimiser."),
        ({"xyzzy": 1}, "see print_config for every setting."),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_known_one(
    mapping: dict[str, Any], suggestion: str
) -> None:
    assert only_problem(mapping).endswith(suggestion)


WITHOUT_EFFECT: dict[tuple[str, str], dict[str, Any]] = {
    ("momentum", "optimiser"): {"momentum": 0.9, "optimiser": "adamw"},
    ("momentum", "num_local_steps"): {"momentum": 0.9, "num_local_steps": 1},
    ("prox_mu", "num_local_steps"): {"prox_mu": 0.1, "num_local_steps": 1},
    ("num_local_epochs", "num_local_steps"): {"num_local_epochs": 1, "num_local_steps": 5},
    ("schedule.final_learning_rate", "schedule.kind"): {"schedule": {"final_learning_rate": 1e-6}},
    ("partition.alpha", "partition.kind"): {"partition": {"alpha": 0.1}},
    ("partition.min_examples", "partition.kind"): {
        "partition": {"kind": "dirichlet_by_client", "min_examples": 5}
    },
    ("iid_split", "partition.kind"): {
        "iid_split": False,
        "partition": {"kind": "dirichlet_by_class"},
    },
    ("data.text", "task_name"): {"data": {"text": "title"}},
    ("num_threads", "device"): {"num_threads": 2, "device": "cuda"},
    ("adapter.rank", "adapter.kind"): {"adapter": {"rank": 4}},
    ("adapter.alpha", "adapter.kind"): {"adapter": {"alpha": 4.0, "kind": "head"}},
    ("adapter.dropout", "adapter.kind"): {"adapter": {"dropout": 0.1, "kind": "head"}},
    ("adapter.targets", "adapter.kind"): {"adapter": {"targets": "query,value"}},
    ("adapter.freeze_a", "adapter.kind"): {"adapter": {"freeze_a": True, "kind": "head"}},
    ("adapter.rslora", "adapter.kind"): {"adapter": {"rslora": True}},
    ("download.decay_every", "download.density_decay"): {
        "download": {"density": 0.5, "decay_every": 2}
    },
    ("upload.decay_every", "upload.density_decay"): {"upload": {"decay_every": 2}},
    ("download.evaluate", "download.codec"): {"download": {"evaluate": True}},
    ("upload.values", "upload.codec"): {"upload": {"values": "state"}},
    ("upload.values", "upload.density"): {
        "upload": {"values": "state", "codec": "nf4", "density": 0.5}
    },
    ("privacy.noise_multiplier", "privacy.clip"): {"privacy": {"noise_multiplier": 1.0}},
    ("privacy.target_epsilon", "privacy.clip"): {"privacy": {"target_epsilon": 1.0}},
    ("privacy.noise_multiplier", "privacy.target_epsilon"): {
        "weighting": "uniform",
        "privacy": {"clip": 1.0, "noise_multiplier": 1.0, "target_epsilon": 1.0},
    },
    ("privacy.max_epsilon", "privacy.noise_multiplier"): {"privacy": {"max_epsilon": 1.0}},
    ("privacy.delta", "privacy.noise_multiplier"): {"privacy": {"delta": 0.1}},
    ("privacy.accountant", "privacy.noise_multiplier"): {"privacy": {"accountant": "pld"}},
    ("adapter.modules_to_save", "adapter.kind"): {"adapter": {"modules_to_save": ["pooler"]}},
    ("clients_per_round", "clients"): {"num_clients": 4, "clients": [0], "clients_per_round": 0.5},
    ("clients_per_round", "cohorts"): {
        "num_clients": 4,
        "cohorts": [[0]],
        "clients_per_round": 0.5,
    },
    ("sampling", "clients"): {"clients": [0], "sampling": "poisson"},
    ("sampling", "cohorts"): {"cohorts": [[0]], "sampling": "poisson"},
    ("clients", "cohorts"): {"clients": [0], "cohorts": [[0]]},
    ("cohorts", "num_rounds"): {"cohorts": [[0], [0]], "num_rounds": 1},
    ("download.density_decay", "download.decay_every"): {
        "download": {"density_decay": 0.5, "decay_every": 3}
    },
    ("upload.density_decay", "upload.decay_every"): {
        "upload": {"density_decay": 0.5, "decay_every": 4}
    },
    ("download.keep_heads", "download.density"): {
        "adapter": {"kind": "lora"},
        "download": {"keep_heads": True},
    },
    ("upload.keep_heads", "upload.density"): {
        "adapter": {"kind": "dora"},
        "upload": {"keep_heads": True, "codec": "nf4"},
    },
    ("download.keep_heads", "adapter.kind"): {"download": {"keep_heads": True, "density": 0.5}},
    ("upload.keep_heads", "adapter.kind"): {
        "adapter": {"kind": "head"},
        "upload": {"keep_heads": True, "density": 0.5},
    },
    ("upload.keep_heads", "client_freeze"): {
        "adapter": {"kind": "lora"},
        "client_freeze": True,
        "download": {"density": 0.5},
        "upload": {"keep_heads": True, "density": 0.25},
    },
    ("client_freeze", "download.density"): {"client_freeze": True},
    ("server_freeze", "download.density"): {"server_freeze": True, "download": {"codec": "nf4"}},
    ("server_freeze", "num_rounds"): {
        "server_freeze": True,
        "download": {"density": 0.5},
        "num_rounds": 1,
    },
    ("upload.error_feedback", "upload.codec"): {
        "upload": {"error_feedback": True},
        "tiers": [{"download": {"codec": "nf4"}}, {}],
    },
    ("upload.density", "client_freeze"): {
        "client_freeze": True,
        "download": {"density": 0.1},
        "upload": {"density": 0.5},
    },
    ("tier_ranks", "tiers"): {
        "tier_ranks": "largest",
        "adapter": {"kind": "lora", "rank": 8},
        "tiers": [{"rank": 8}, {"download": {"density": 0.5}}],
    },
    ("merge.divide_by", "upload.density"): {
        "merge": {"divide_by": "senders"},
        "download": {"density": 0.5},
    },
    ("download.evaluate", "tiers"): {
        "download": {"evaluate": True, "density": 0.5},
        "tiers": [{}, {"download": {"density": 0.25}}],
    },
    ("download.codec", "tiers"): {
        "download": {"codec": "nf4"},
        "tiers": [{"download": {"codec": "fp16"}}, {"download": {"codec": "int8"}}],
    },
    ("download.density", "tiers"): {
        "download": {"density": 0.5},
        "tiers": [{"download": {"density": 0.25}}, {"download": {"density": 1.0}}],
    },
    ("upload.codec", "tiers"): {
        "upload": {"codec": "nf4"},
        "tiers": [{"upload": {"codec": "fp16"}}, {"upload": {"codec": "none"}}],
    },
    ("upload.density", "tiers"): {
        "upload": {"density": 0.5},
        "tiers": [{"upload": {"density": 0.25}}, {"upload": {"density": 1.0}}],
    },
    ("num_local_steps", "tiers"): {
        "num_local_steps": 7,
        "tiers": [{"num_local_steps": 1}, {"num_local_steps": 2}],
    },
    ("privacy.target_quantile", "privacy.clip"): {"privacy": {"target_quantile": 0.5}},
    ("privacy.unit", "privacy.clip"): {"privacy": {"unit": "group"}},
    ("privacy.clip_noise", "privacy.noise_multiplier"): {
        "weighting": "uniform",
        "privacy": {"clip": 1.0, "target_quantile": 0.5, "clip_noise": 1.0},
    },
    ("privacy.max_epsilon", "privacy.target_epsilon"): {
        "weighting": "uniform",
        "privacy": {"clip": 1.0, "target_epsilon": 1.0, "max_epsilon": 1.0},
    },
    ("privacy.clip_learning_rate", "privacy.target_quantile"): {
        "weighting": "uniform",
        "privacy": {"clip": 1.0, "clip_learning_rate": 0.5},
    },
    ("privacy.clip_noise", "privacy.target_quantile"): {
        "weighting": "uniform",
        "privacy": {"clip": 1.0, "noise_multiplier": 1.0, "clip_noise": 0.5},
    },
    ("privacy.groups_per_client", "privacy.unit"): {
        "weighting": "uniform",
        "privacy": {"clip": 1.0, "groups_per_client": 5},
    },
    ("privacy.groups_per_round", "privacy.unit"): {
        "weighting": "uniform",
        "privacy": {"clip": 1.0, "groups_per_round": 5},
    },
    ("server.momentum", "server.optimiser"): {"server": {"optimiser": "adam", "momentum": 0.9}},
    ("server.beta1", "server.optimiser"): {"server": {"optimiser": "adagrad", "beta1": 0.5}},
    ("server.beta2", "server.optimiser"): {"server": {"beta2": 0.99}},
    ("server.epsilon", "server.optimiser"): {"server": {"epsilon": 1e-3}},
    ("server.weight_decay", "server.optimiser"): {
        "server": {"optimiser": "adam", "weight_decay": 0.01}
    },
}


@pytest.mark.parametrize("rule", NO_EFFECT, ids=lambda rule: f"{rule.path}-{rule.other}")
def test_a_setting_without_effect_is_an_error(rule: Any) -> None:
    problem = only_problem(WITHOUT_EFFECT[rule.path, rule.other])
    assert problem.startswith(f"{rule.path} must ")
    assert f"with {rule.other}=" in problem


@pytest.mark.parametrize(
    "mapping",
    [
        {"momentum": 0.9},
        {"weight_decay": 0.1, "optimiser": "sgd"},
        {"weight_decay": 0.1, "optimiser": "adam"},
        {"prox_mu": 0.1, "num_local_steps": 2},
        {"schedule": {"kind": "linear", "final_learning_rate": 1e-6}},
        {"partition": {"kind": "dirichlet_by_class", "alpha": 0.1, "min_examples": 5}},
        {"partition": {"kind": "dirichlet_by_client", "alpha": 0.1}},
        {"iid_split": False, "partition": {"kind": "label_sorted"}},
        {"precision": "bf16", "device": "cpu"},
        {"num_threads": 2, "device": "cpu"},
        {"site_ids": [0, 0, 1], "clients_per_round": 2, "min_clients": 2},
        {"site_ids": [0, 1], "num_clients": 8, "clients_per_round": 0.5, "min_clients": 4},
        {"keep_last": None, "learning_rate": 1},
        {"train_path": "sklearn", "test_path": "sklearn"},
        {"checkpoints_dir": "s3://bucket/jobs/1"},
        {"adapter": {"kind": "lora", "rank": 4, "targets": ["query", "value"], "rslora": True}},
        {"adapter": {"kind": "dora", "dropout": 0.1, "freeze_a": True, "targets": "all-linear"}},
        {"adapter": {"kind": "head", "modules_to_save": "pooler"}},
        {"weighting": "uniform", "privacy": {"clip": 1.0, "noise_multiplier": 1.0, "delta": 1e-6}},
        {"weighting": "uniform", "privacy": {"clip": 1.0, "target_epsilon": 2, "max_epsilon": 1}},
        {"download": {"density": 0.25, "evaluate": True}, "upload": {"density_decay": 0.9}},
        {"download": {"codec": "nf4"}, "upload": {"codec": "nf4", "values": "state"}},
        {"server": {"momentum": 0.9}},
        {"server": {"optimiser": "adamw", "beta1": 0, "beta2": 0.9, "weight_decay": 0.1}},
        {"server": {"optimiser": "adagrad", "epsilon": 1e-3}},
        {"server": {"optimiser": "yogi", "beta1": 0.5, "epsilon": 1}},
    ],
    ids=str,
)
def test_settings_that_belong_together_are_accepted(mapping: dict[str, Any]) -> None:
    assert problems({**PACKAGED, **mapping}) == []


@pytest.mark.parametrize(
    ("mapping", "path"),
    [
        ({"site_ids": [0, 1], "clients_per_round": 3}, "clients_per_round"),
        ({"site_ids": [0, 1], "min_clients": 3}, "min_clients"),
        ({"num_clients": 4, "sampling": "poisson"}, "sampling"),
        ({"num_clients": 4, "clients_per_round": 0.5, "min_clients": 3}, "min_clients"),
        ({"site_ids": []}, "site_ids"),
        ({"site_ids": [0, -1]}, "site_ids[1]"),
        ({"site_ids": 4}, "site_ids"),
        ({"clients_per_round": 1.5}, "clients_per_round"),
        ({"clients_per_round": 0}, "clients_per_round"),
    ],
    ids=str,
)
def test_clients_must_add_up(mapping: dict[str, Any], path: str) -> None:
    assert only_problem(mapping).startswith(f"{path} must ")


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


@pytest.mark.parametrize("path", ["train_path", "checkpoints_dir", "model", "data.cache_dir"])
@pytest.mark.parametrize(
    "url", ["s3://me:hunter2@bucket/x", "https://h/x?a=1&X-Sig=hunter2", "s3://me:hun/ter2@b"]
)
def test_credentials_are_refused_and_not_repeated(path: str, url: str) -> None:
    found = problems({**PACKAGED, **nested(path, url)})
    assert any(problem.startswith(f"{path} must") for problem in found)
    assert not any("ter2" in problem for problem in found)


def test_an_unknown_password_is_not_repeated() -> None:
    assert "hunter2" not in only_problem({"password": "hunter2"})


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "", ".", "..", "a b", "ä", "-x", 1.5, True, "a\n"]
)
def test_a_job_name_is_a_plain_name(name: Any) -> None:
    assert only_problem({"job_name": name}).startswith("job_name must be a plain name")


def test_a_job_name_that_the_command_line_made_a_number_is_taken_as_text() -> None:
    config = read_config({**PACKAGED, "job_name": 20261121, "author": 7})
    assert (config.job_name, config.author) == ("20261121", "7")


def test_sacred_containers_are_read_and_left_alone() -> None:
    given_dict = ReadOnlyDict(site_ids=ReadOnlyList([0, 1]), data=ReadOnlyDict(cache_dir=None))
    given_dict = ReadOnlyDict({**PACKAGED, **given_dict})
    assert read_config(given_dict).site_ids == (0, 1)
    assert isinstance(given_dict["data"], ReadOnlyDict)


def test_defaults_round_trip() -> None:
    config = read_config({**defaults(), **PACKAGED})
    assert config.model_dump(mode="json") == {**defaults(), **PACKAGED}
    assert read_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("name", NAMED)
def test_named_configurations_are_sound(name: str) -> None:
    assert problems(merged(defaults(), NAMED[name])) == []


def test_the_identity_leaves_out_what_decides_nothing() -> None:
    base = read_config({**PACKAGED})
    same = read_config({
        **PACKAGED, "site_ids": [0, 1], "num_rounds": 9, "device": "cpu", "job_name": "x",
        "num_threads": 1, "partition": {"kind": "iid"}, "keep_last": 1,
    })  # fmt: skip
    assert same.identity() == base.identity()
    for change in ({"seed": 1}, {"iid_split": False}, {"schedule": {"kind": "linear"}}):
        assert read_config({**PACKAGED, **change}).identity() != base.identity()


def test_the_number_of_rounds_matters_to_a_schedule_over_them() -> None:
    linear = {**PACKAGED, "schedule": {"kind": "linear"}}
    one, two = (read_config({**linear, "num_rounds": n}).identity() for n in (3, 4))
    assert one != two


def test_a_fraction_of_the_clients_is_rounded_half_up_and_never_to_none() -> None:
    config = Config(clients_per_round=0.5)
    assert [config.cohort_size(n) for n in (1, 2, 3, 5)] == [1, 1, 2, 3]
    assert Config(clients_per_round=0.01).cohort_size(10) == 1


def test_print_config_shows_every_setting_with_its_documentation() -> None:
    text = describe({**defaults(), "num_rounds": 7}, colour=False)
    for path in PATHS:
        assert f" {path.split('.')[-1]} " in text
    assert "* num_rounds " in text
    assert "\033" not in text
    assert "\033" in describe(defaults(), colour=True)
    marked = [line for line in describe(defaults(), colour=False).splitlines()[1:] if "*" in line]
    assert marked == []


@pytest.mark.parametrize("path", PATHS)
def test_every_setting_is_documented(path: str) -> None:
    *sections, name = path.split(".")
    owner = value_at(Config(), sections[0]) if sections else Config()
    documentation = type(owner).model_fields[name].description
    assert documentation
    assert documentation.endswith(".")


def test_the_configuration_loads_without_heavy_libraries() -> None:
    heavy = ["torch", "transformers", "datasets", "pandas", "matplotlib", "pymongo", "numpy"]
    code = f"import sys, scaling_fl.config; print(*[m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""


def test_names_may_be_given_as_a_list_or_with_commas() -> None:
    for given_as in ("query,value", ["query", "value"]):
        adapter = {"kind": "lora", "targets": given_as}
        assert read_config({**PACKAGED, "adapter": adapter}).adapter.targets == ("query", "value")
    assert only_problem({"adapter": {"kind": "lora", "targets": "query,"}}).startswith(
        "adapter.targets[1] must"
    )


def test_privacy_needs_clients_that_count_alike() -> None:
    problem = only_problem({"privacy": {"clip": 1.0}})
    assert problem.startswith("weighting must be uniform with privacy.clip")
    assert "got 'examples' with privacy.clip=1.0" in problem


# Tiers


LORA = {"adapter": {"kind": "lora", "rank": 8}}
PRIVATE = {"weighting": "uniform", "num_clients": 4}
GROUPS = {"clip": 1.0, "unit": "group", "groups_per_client": 4}


def with_tiers(*tiers: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {**LORA, "num_clients": 4, **settings, "tiers": list(tiers)}


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        (
            with_tiers({"download": {"density": 0.5}}),
            "tiers must be two or more, got 1; set the same for all clients instead.",
        ),
        (
            with_tiers({"rank": 4}, {}, adapter={"kind": "head"}),
            "tiers[].rank must be left alone unless adapter.kind is lora or dora, got [4] with "
            "adapter.kind=head; set adapter.kind=lora or dora, or drop the ranks.",
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
            "tiers must differ from each other in more than who is of them, got 3 of which some "
            "are equal; drop one or change it.",
        ),
        (
            {**LORA, "download": {"density": 0.5}, "upload": {"codec": "nf4", "values": "state"}},
            "upload.values must be update when clients receive a part of the state, or the rest of "
            "it would be replaced by what they trained from nothing, got 'state' with "
            "download.density=0.5; drop upload.values or download.density.",
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
            "tiers[].share must be given for every tier or for none, got it for 1 of 2; give it "
            "for all.",
        ),
        (
            with_tiers({"rank": 4, "share": 0.5}, {"share": 0.4}),
            "tiers[].share must add up to 1, got 0.9; correct the shares.",
        ),
        (
            with_tiers(
                {"rank": 4, "share": 0.5, "clients": [0, 1]}, {"share": 0.5, "clients": [2, 3]}
            ),
            "tiers[].share must be left alone when tiers list their clients, got [0.5, 0.5]; give "
            "one of the two.",
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
                "merge": {"divide_by": "senders"},
                "upload": {"density": 0.5},
                "privacy": {"clip": 1.0},
            },
            "merge.divide_by must be all with privacy.clip, because who sent a coordinate depends "
            "on the data, got 'senders' with privacy.clip=1.0; drop merge.divide_by or "
            "privacy.clip.",
        ),
        (
            PRIVATE
            | {
                "upload": {"error_feedback": True, "codec": "nf4"},
                "privacy": {"clip": 1.0, "noise_multiplier": 1.0},
            },
            "upload.error_feedback must be False with noise, whose accounting holds for clients "
            "that keep nothing between the rounds they are sampled for, got True with "
            "privacy.clip=1.0; drop upload.error_feedback or the noise.",
        ),
        (
            PRIVATE | {"cohorts": [[0, 1], [2]], "privacy": {"clip": 1.0}},
            "cohorts must have the same number of clients in every round with privacy.clip, whose "
            "divisor is fixed, got [[0, 1], [2]] with privacy.clip=1.0; list as many clients for "
            "each round.",
        ),
        (
            PRIVATE | {"upload": {"codec": "nf4"}, "privacy": GROUPS},
            "upload must be exact with privacy.unit=group, because a client's sum of bounded "
            "updates that is changed after it is no longer bounded group by group, got "
            "{'codec': 'nf4'}; drop what is set of it, or protect clients (privacy.unit=client).",
        ),
        (
            with_tiers({"upload": {"density": 0.5}}, {}, weighting="uniform", privacy=GROUPS),
            "tiers[].upload must be exact with privacy.unit=group, because a client's sum of "
            "bounded updates that is changed after it is no longer bounded group by group, got "
            "{'density': 0.5}; drop what is set of it, or protect clients (privacy.unit=client).",
        ),
        (
            PRIVATE | {"download": {"density": 0.5}, "client_freeze": True, "privacy": GROUPS},
            "client_freeze must be left alone with privacy.unit=group, because groups are bounded "
            "before coordinates are left out, got True; drop it or protect clients "
            "(privacy.unit=client).",
        ),
        (
            with_tiers({"rank": 4}, {}, weighting="uniform", privacy=GROUPS),
            "tiers must be left alone with privacy.unit=group, because groups are bounded before "
            "coordinates are left out, got a rank; drop it or protect clients "
            "(privacy.unit=client).",
        ),
        (
            PRIVATE | {"privacy": GROUPS | {"groups_per_round": 5}},
            "privacy.groups_per_round must not exceed privacy.groups_per_client, got 5 of 4; "
            "lower it or raise privacy.groups_per_client.",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_rule_between_settings_is_told_in_one_sentence(
    mapping: dict[str, Any], problem: str
) -> None:
    assert only_problem(mapping) == problem


@pytest.mark.parametrize(
    "mapping",
    [
        with_tiers({"rank": 1}, {"rank": 4}, {}),
        with_tiers({"rank": 8}, {"download": {"density": 0.5}}),
        with_tiers({"share": 1 / 3}, {"share": 2 / 3, "rank": 2}),
        with_tiers({"clients": [3, 0]}, {"clients": [1, 2], "num_local_steps": 3}),
        with_tiers({"rank": 2}, {}, tier_ranks="largest", merge={"divide_by": "senders"}),
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
    ],
    ids=str,
)
def test_tiers_cohorts_and_groups_that_add_up_are_accepted(mapping: dict[str, Any]) -> None:
    assert problems({**PACKAGED, **mapping}) == []


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        (
            {"download": {"density": 1.5}},
            "tiers[1].download.density must be at most 1, got 1.5; give such a value or leave it "
            "out.",
        ),
        (
            {"upload": {"codec": "nf5"}},
            "tiers[1].upload.codec must be one of none, fp16, bf16, int8, nf4, nf4_double or None, "
            "got 'nf5'; use tiers[1].upload.codec=nf4.",
        ),
        (
            {"rank": 0},
            "tiers[1].rank must be at least 1, got 0; give such a value or leave it out.",
        ),
        (
            {"clients": [0, -1]},
            "tiers[1].clients[1] must be at least 0, got -1; give such a value or leave it out.",
        ),
        (
            {"share": "half"},
            "tiers[1].share must be a number or None, got 'half'; give such a value or leave it "
            "out.",
        ),
        (
            {"download": {"densty": 0.5}},
            "tiers[1].download.densty must be a known setting, got 0.5; use "
            "tiers[].download.density.",
        ),
        (
            {"ranks": 4},
            "tiers[1].ranks must be a known setting, got 4; use tiers[].rank.",
        ),
    ],
    ids=str,
)
def test_a_wrong_setting_of_a_tier_is_told_with_its_place(
    tier: dict[str, Any], expected: str
) -> None:
    found = problems({**PACKAGED, **with_tiers({}, tier)})
    assert found == [expected]


def test_a_wrong_tier_does_not_make_what_needs_it_wrong() -> None:
    mapping = with_tiers(
        {}, {"rank": 0, "download": {"density": 0.5}, "upload": {"density": 0.5}},
        client_freeze=True, server_freeze=True, merge={"divide_by": "senders"},
        upload={"error_feedback": True},
    )  # fmt: skip
    assert only_problem(mapping).startswith("tiers[1].rank must")


def test_a_tier_has_the_settings_of_all_clients_but_for_its_own() -> None:
    config = read_config({
        **PACKAGED,
        **with_tiers(
            {"rank": 2, "download": {"density": 0.5}, "num_local_steps": 9},
            {"upload": {"codec": "nf4"}},
            download={"codec": "fp16", "density": 0.75, "density_decay": 0.9},
            upload={"density": 0.25},
        ),
    })  # fmt: skip
    small, other = config.by_tier()
    assert (small.adapter.rank, other.adapter.rank, config.adapter.rank) == (2, 8, 8)
    assert (small.num_local_steps, other.num_local_steps) == (9, None)
    assert (small.download.codec, small.download.density) == ("fp16", 0.5)
    assert (other.download.codec, other.download.density) == ("fp16", 0.75)
    assert small.download.density_decay == other.download.density_decay == 0.9
    assert (small.upload.codec, small.upload.density) == ("none", 0.25)
    assert (other.upload.codec, other.upload.density) == ("nf4", 0.25)
    plain = read_config(PACKAGED)
    assert plain.by_tier() == [plain]


def test_tiers_are_part_of_the_identity() -> None:
    base = {**PACKAGED, **with_tiers({"rank": 2}, {})}
    changed = {**PACKAGED, **with_tiers({"rank": 4}, {})}
    assert read_config(base).identity() != read_config(changed).identity()
    assert read_config(read_config(base).model_dump(mode="json")) == read_config(base)


def test_print_config_shows_every_tier_and_what_a_tier_may_have() -> None:
    tiers = [{"rank": 4}, {"download": {"density": 0.5}}]
    lines = describe({**defaults(), "tiers": tiers}, colour=False).splitlines()
    first, second = (lines.index(f"  tiers[{place}]:") for place in (0, 1))
    end = next(place for place, line in enumerate(lines) if line.startswith("  tier_ranks"))
    marked = [line.split("=")[0].split() for line in lines[first:second] if line[0:1] == "*"]
    assert marked == [["*", "rank"]]
    assert [line.split("=")[0].split() for line in lines[second:end] if line[0:1] == "*"] == [
        ["*", "density"]
    ]
    without = describe(defaults(), colour=False)
    assert "  tiers[]:" in without
    assert "Rank that its clients hold of the adapter's." in without
    assert describe({**defaults(), "tiers": [5]}, colour=False)
    assert describe({**defaults(), "tiers": "no"}, colour=False)


def test_a_cohort_counts_the_most_that_are_listed() -> None:
    config = read_config({**PACKAGED, "num_clients": 5, "cohorts": [[0], [1, 2, 3]]})
    assert (config.cohort_size(5), config.listed_cohorts) == (3, ((0,), (1, 2, 3)))
    one = read_config({**PACKAGED, "num_clients": 5, "clients": [4, 2]})
    assert (one.cohort_size(5), one.listed_cohorts) == (2, ((4, 2),))
    assert read_config(PACKAGED).listed_cohorts == ()
