"""A setting that would do nothing is an error; the sentence follows from the field."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from scaling_fl.config import Config, defaults, describe, read_config, read_single_settings
from scaling_fl.config.conditions import With, is_set
from scaling_fl.config.effects import EFFECTS, field_conditions
from scaling_fl.config.merge_row import Option
from scaling_fl.config.merges import merge_options
from scaling_fl.config.problems import field_at
from tests.unit.config.settings import (
    LORA,
    PACKAGED,
    merged,
    nested,
    only_problem,
    problems,
    with_tiers,
)

ROOT = Path(__file__).parents[3]
OTHER: dict[type, Callable[[Option], Any]] = {
    bool: lambda option: not option.default,
    int: lambda option: option.default + 1,
    float: lambda option: option.default / 2,
    str: lambda option: next(name for name in get_args(option.type) if name != option.default),
    type(None): lambda option: 3,
}
"""A value of an option that is not its default."""

NOISY = {"weighting": "uniform"}
SCAFFOLD = {"scaffold": True, "num_clients": 4}
ALPACA = {"task_name": "generalnlp"}
INSTRUCTION = {"task_name": "instruction", "train_path": str(ROOT / "pyproject.toml")}
WITHOUT_EFFECT: dict[tuple[str, str], dict[str, Any]] = {
    ("momentum", "optimiser"): {"momentum": 0.9, "optimiser": "adamw"},
    ("momentum", "num_local_steps"): {"momentum": 0.9, "num_local_steps": 1},
    ("prox_mu", "num_local_steps"): {"prox_mu": 0.1, "num_local_steps": 1},
    ("scaffold", "optimiser"): {**SCAFFOLD, "optimiser": "adamw"},
    ("scaffold", "momentum"): {**SCAFFOLD, "momentum": 0.9},
    ("scaffold", "merge.method"): {**SCAFFOLD, "merge": {"method": "ties"}},
    ("scaffold", "client_freeze"): {
        **SCAFFOLD,
        "client_freeze": True,
        "download": {"density": 0.5},
    },
    ("scaffold", "privacy.clip"): {
        **SCAFFOLD,
        "weighting": "uniform",
        "privacy": {"clip": 1.0},
    },
    ("scaffold", "num_rounds"): {**SCAFFOLD, "num_rounds": 1},
    ("scaffold", "tiers"): with_tiers({"rank": 4}, {}, scaffold=True),
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
    ("partition.column", "partition.kind"): {"partition": {"column": "ward"}},
    ("partition.pooled", "partition.kind"): {"partition": {"pooled": 0.5}},
    ("data.test_of", "data.test_share"): {
        "task_name": "reddit",
        "train_path": str(ROOT / "pyproject.toml"),
        "test_path": str(ROOT / "README.md"),
        "partition": {"kind": "column", "column": "author"},
        "data": {"test_of": "clients"},
    },
    ("packing", "task_name"): {"packing": True, "num_local_steps": 5},
    ("packing", "num_local_steps"): {**ALPACA, "packing": True},
    ("packing", "length_grouped"): {
        **ALPACA,
        "packing": True,
        "num_local_steps": 5,
        "length_grouped": True,
    },
    ("data_order", "num_local_steps"): {"data_order": "fixed"},
    ("data.instruction", "task_name"): {**ALPACA, "data": {"instruction": "question"}},
    ("data.response", "task_name"): {**ALPACA, "data": {"response": "answer"}},
    ("data.messages", "task_name"): {**ALPACA, "data": {"messages": "turns"}},
    ("data.messages", "data.instruction"): {
        **INSTRUCTION,
        "data": {"messages": "turns", "instruction": "question", "test_share": 0.2},
    },
    ("data.system", "task_name"): {"data": {"system": "Be brief."}},
    ("data.template", "task_name"): {"data": {"template": "chat"}},
    ("evaluation.questions", "task_name"): {"evaluation": {"questions": __file__}},
    ("evaluation.max_generated", "task_name"): {"evaluation": {"max_generated": 5}},
    ("evaluation.layout", "evaluation.questions"): {"evaluation": {"layout": "mmlu"}},
    ("evaluation.rule", "evaluation.questions"): {"evaluation": {"rule": "generation"}},
    ("evaluation.max_questions", "evaluation.questions"): {"evaluation": {"max_questions": 5}},
    ("data.text", "task_name"): {"data": {"text": "title"}},
    ("data.text_pair", "task_name"): {"data": {"text_pair": "hypothesis"}},
    ("data.label", "task_name"): {"data": {"label": "stars"}},
    ("data.labels", "task_name"): {"data": {"labels": "no,yes"}},
    ("data.test_share", "task_name"): {"data": {"test_share": 0.2}},
    ("data.test_share", "test_path"): {
        "task_name": "table",
        "train_path": str(ROOT / "pyproject.toml"),
        "test_path": str(ROOT / "README.md"),
        "data": {"test_share": 0.2, "text": "a", "label": "b"},
    },
    ("data.image", "task_name"): {"data": {"image": "photo"}},
    ("data.multi_label", "data.image"): {
        "task_name": "images",
        "model": "tiny",
        "train_path": str(ROOT / "docs"),
        "data": {"multi_label": True, "test_share": 0.2},
    },
    ("data.image_size", "task_name"): {"data": {"image_size": 32}},
    ("data.augment", "task_name"): {"data": {"augment": False}},
    ("data.images", "task_name"): {"data": {"images": "pages"}},
    ("num_threads", "device"): {"num_threads": 2, "device": "cuda"},
    ("gradient_checkpointing", "task_name"): {"gradient_checkpointing": True},
    ("load.bits", "task_name"): {**LORA, "load": {"bits": 16}},
    ("load.attention", "task_name"): {"load": {"attention": "eager"}},
    ("load.bits", "adapter.kind"): {**ALPACA, "load": {"bits": 16}},
    ("load.double_quantisation", "load.bits"): {
        **ALPACA,
        **LORA,
        "load": {"double_quantisation": False},
    },
    ("adapter.modules_to_save", "load.bits"): {
        **ALPACA,
        "adapter": {"kind": "lora", "modules_to_save": ["norm"]},
        "load": {"bits": 16},
    },
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
    ("privacy.max_epsilon", "stop_when.epsilon"): {
        **NOISY,
        "privacy": {"clip": 1.0, "noise_multiplier": 1.0, "max_epsilon": 2.0},
        "stop_when": {"epsilon": 2.0},
    },
    ("stop_when.epsilon", "privacy.noise_multiplier"): {"stop_when": {"epsilon": 1.0}},
    ("stop_when.epsilon", "privacy.target_epsilon"): {
        **NOISY,
        "privacy": {"clip": 1.0, "target_epsilon": 1.0},
        "stop_when": {"epsilon": 1.0},
    },
    ("stop_when.metric", "stop_when.target"): {"stop_when": {"metric": "train.loss"}},
    ("stop_when.target", "stop_when.metric"): {"stop_when": {"target": 0.5}},
    ("stop_when.patience", "stop_when.metric"): {"stop_when": {"patience": 1}},
    ("stop_when.min_gain", "stop_when.patience"): {
        "stop_when": {"metric": "train.loss", "target": 0.5, "min_gain": 0.1}
    },
    ("stop_when.target", "num_rounds"): {
        "stop_when": {"metric": "validation.loss", "target": 0.5},
        "num_rounds": 5,
        "eval_every": 5,
    },
    ("stop_when.patience", "num_rounds"): {
        "stop_when": {"metric": "validation.loss", "patience": 2},
        "num_rounds": 6,
        "eval_every": 2,
    },
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
    ("tier_scale", "tiers"): {
        "tier_scale": "own",
        "adapter": {"kind": "lora", "rank": 8},
        "tiers": [{"rank": 8}, {"download": {"density": 0.5}}],
    },
    ("tier_scale", "merge.method"): with_tiers({"rank": 4}, {}, tier_scale="adapter"),
    ("schedule.kind", "num_rounds"): {"schedule": {"kind": "cosine"}, "num_rounds": 1},
    ("server.schedule", "num_rounds"): {"server": {"schedule": "linear"}, "num_rounds": 1},
    ("merge.method", "merge.density"): {"merge": {"method": "magnitude_mask", "density": 1.0}},
    ("merge.trim_by", "merge.density"): {
        "merge": {"method": "dare_ties", "density": 1.0, "trim_by": "tensor"}
    },
    ("merge.weigh_by", "tiers"): {
        "merge": {"method": "flexlora", "weigh_by": "rank"},
        "adapter": {"kind": "lora", "rank": 8},
    },
    ("merge.method", "upload.density"): {
        "merge": {"method": "mean_of_senders"},
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
    ("privacy.group_column", "privacy.unit"): {
        "task_name": "table",
        "train_path": str(ROOT / "pyproject.toml"),
        "test_path": str(ROOT / "README.md"),
        "data": {"text": "a", "label": "b"},
        "weighting": "uniform",
        "sampling": "poisson",
        "clients_per_round": 0.5,
        "num_clients": 4,
        "privacy": {"clip": 1.0, "group_column": "provider"},
    },
    ("privacy.groups_per_round", "privacy.unit"): {
        "weighting": "uniform",
        "privacy": {"clip": 1.0, "groups_per_round": 5},
    },
    ("tiers[].rank", "adapter.kind"): with_tiers({"rank": 4}, {}, adapter={"kind": "head"}),
    **{
        (f"merge.{name}", "merge.method"): {"merge": {name: OTHER[type(option.default)](option)}}
        for name, (option, _) in merge_options().items()
    },
    ("merge.on", "merge.method"): {**LORA, "merge": {"on": "products"}},
    ("merge.weigh_by", "merge.method"): with_tiers({"rank": 4}, {}, merge={"weigh_by": "rank"}),
    ("server.momentum", "server.optimiser"): {"server": {"optimiser": "adam", "momentum": 0.9}},
    ("server.beta1", "server.optimiser"): {"server": {"optimiser": "adagrad", "beta1": 0.5}},
    ("server.final_learning_rate", "server.schedule"): {"server": {"final_learning_rate": 0.1}},
    ("server.beta2", "server.optimiser"): {"server": {"beta2": 0.99}},
    ("server.epsilon", "server.optimiser"): {"server": {"epsilon": 1e-3}},
    ("server.weight_decay", "server.optimiser"): {
        "server": {"optimiser": "adam", "weight_decay": 0.01}
    },
    ("server.bias_correction", "server.optimiser"): {"server": {"bias_correction": False}},
}


ACCEPTED: list[dict[str, Any]] = [
    {"momentum": 0.9},
    {**ALPACA, "packing": True, "num_local_steps": 5, "data_order": "fixed"},
    {**ALPACA, "data": {"template": "chat", "system": "Be brief.", "test_share": 0.2}},
    {**INSTRUCTION, "data": {"messages": "turns", "test_share": 0.2}},
    {"gradient_accumulation_steps": 4},
    {**ALPACA, **LORA, "load": {"bits": 4, "double_quantisation": False}},
    {**ALPACA, "gradient_checkpointing": True, "optimiser": "adamw_8bit"},
    {"weight_decay": 0.1, "optimiser": "sgd"},
    {"weight_decay": 0.1, "optimiser": "adam"},
    {"prox_mu": 0.1, "num_local_steps": 2},
    {**SCAFFOLD, "num_local_steps": 1, "weight_decay": 0.1, "upload": {"codec": "nf4"}},
    {**SCAFFOLD, "clients_per_round": 2, "sampling": "poisson", "download": {"density": 0.5}},
    {"schedule": {"kind": "linear", "final_learning_rate": 1e-6}},
    {"server": {"schedule": "cosine", "final_learning_rate": 0.1}},
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
    {**NOISY, "privacy": {"clip": 1.0, "target_epsilon": 2}, "stop_when": {"epsilon": 1}},
    {"stop_when": {"metric": "validation.loss", "target": 3}, "num_rounds": 6, "eval_every": 5},
    {"stop_when": {"metric": "validation.loss", "patience": 2}, "num_rounds": 7, "eval_every": 2},
    {"stop_when": {"metric": "train.loss", "patience": 1}, "eval_every": 3},
    {"stop_when": {"bytes": 1, "seconds": 1}, "num_rounds": 1},
    {"download": {"density": 0.25, "evaluate": True}, "upload": {"density_decay": 0.9}},
    {"download": {"codec": "nf4"}, "upload": {"codec": "nf4", "values": "state"}},
    {"server": {"momentum": 0.9}},
    {"server": {"optimiser": "adamw", "beta1": 0, "beta2": 0.9, "weight_decay": 0.1}},
    {"server": {"optimiser": "adagrad", "epsilon": 1e-3}},
    {"server": {"optimiser": "yogi", "beta1": 0.5, "epsilon": 1, "bias_correction": True}},
    {"server": {"optimiser": "adam", "bias_correction": False}},
    {"merge": {"method": "ties", "density": 0.5}},
    {**LORA, "num_clients": 5, "merge": {"method": "krum", "on": "products"}},
    with_tiers({"rank": 4}, {}, tier_scale="own"),
    with_tiers({"rank": 4}, {}, tier_scale="adapter", merge={"method": "flexlora"}),
    {"merge": {"method": "ties", "density": 1.0}},
    with_tiers({"rank": 4}, {}, merge={"method": "flexlora", "weigh_by": "rank"}),
    {"merge": {"method": "scaling_fl.methods.merging.means:mean"}},
]


def test_settings_that_belong_together_are_accepted() -> None:
    found = [problems({**PACKAGED, **mapping}) for mapping in ACCEPTED]
    assert found == [[] for _ in ACCEPTED]


def test_a_setting_without_effect_is_an_error() -> None:
    wrong = {key: problems({**PACKAGED, **mapping}) for key, mapping in WITHOUT_EFFECT.items()}
    for rule in EFFECTS:
        (problem,) = wrong.pop((rule.path, rule.others[0]))
        assert problem.startswith(f"{rule.path} {rule.text}, got ")
        assert problem.endswith(f"; {rule.remedy}.")
        assert all(f"{other}=" in problem for other in rule.others)
    assert wrong == {}


def test_the_first_sentence_of_a_kind_reads_so() -> None:
    assert [
        only_problem({"adapter": {"rank": 4, "kind": "head"}}),
        only_problem({"privacy": {"max_epsilon": 1.0}}),
        only_problem({"clients": [0], "cohorts": [[0]]}),
    ] == [
        "adapter.rank must be left alone unless adapter.kind is lora or dora, got 4 with "
        "adapter.kind=head; set adapter.kind=lora or dora, or drop adapter.rank.",
        "privacy.max_epsilon must be left alone unless privacy.noise_multiplier or "
        "privacy.target_epsilon is set, because epsilon is infinite otherwise, got 1.0 with "
        "privacy.noise_multiplier=0.0 and privacy.target_epsilon=None; set "
        "privacy.noise_multiplier or privacy.target_epsilon, or drop privacy.max_epsilon.",
        "clients must be left alone when cohorts is set, because the lists name the clients of "
        "every round, got [0] with cohorts=[[0]]; drop clients or cohorts.",
    ]


def test_every_condition_names_settings_that_exist_and_values_that_they_take() -> None:
    for path, condition in field_conditions():
        assert field_at(path.replace("[]", "")), path
        for other in condition.paths:
            assert field_at(other), (path, other)
        for value in condition.values if isinstance(condition, With) else ():
            read_single_settings(nested(condition.paths[0], value))


def test_every_sentence_is_one_line_of_path_rule_value_and_remedy() -> None:
    for mapping in WITHOUT_EFFECT.values():
        (problem,) = problems({**PACKAGED, **mapping})
        assert re.fullmatch(r"[\w.\[\]]+ must [^;]+, got [^;]+; [^;]+\.", problem), problem


def test_the_remedy_of_a_condition_helps() -> None:
    for path, condition in field_conditions():
        if isinstance(condition, With):
            for value in condition.values:
                mapping = WITHOUT_EFFECT[path, condition.paths[0]]
                mended = merged(PACKAGED, mapping, nested(condition.paths[0], value))
                told = f"{path} {condition.rule}"
                assert not any(problem.startswith(told) for problem in problems(mended)), path


def test_a_setting_is_set_when_it_differs_from_its_default() -> None:
    config = Config(num_rounds=3, momentum=0.5)
    assert [is_set(config, path) for path in ("num_rounds", "momentum")] == [False, True]
    tiered = read_config({**PACKAGED, **with_tiers({"rank": 4}, {})})
    assert is_set(tiered, "tiers[].rank")
    assert not is_set(tiered, "tiers[].share")


def test_print_config_says_what_a_setting_works_with() -> None:
    text = " ".join(describe(defaults(), colour=False).split())
    assert [path for path, condition in field_conditions() if condition.note not in text] == []
    assert "Rank of the adapter. Only with adapter.kind=lora or dora." in text
