"""Every pair of settings that may stand together, in one table of small federations.

Each row must come to the same, bit for bit, on one worker in one go and on two workers that are
interrupted and resumed as two of three sites (law 1), and cost what was predicted (laws 5 and 7).
"""

import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from harness import Run, settings
from loop_grid import LoopGrid, run_on_nodes
from one_process import QuickRun, outcome
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scaling_fl.composition.prediction import predict
from scaling_fl.config import Config, read_config
from scaling_fl.config.base import choices, leaves
from scaling_fl.config.merges import MERGES
from scaling_fl.config.types import AttentionName, QuestionLayoutName, QuestionRule, WatchedMetric
from scaling_fl.core.errors import UserError
from scaling_fl.federation.evaluator import EVALUATION_BYTES

COLUMNS: dict[str, dict[str, dict[str, Any]]] = {
    "clients": {
        ".": {"num_clients": 4},
        "half": {"num_clients": 6, "clients_per_round": 0.5},
        "poisson": {"num_clients": 6, "clients_per_round": 3, "sampling": "poisson"},
        "cohorts": {"num_clients": 4, "cohorts": [[0, 1], [2, 3]]},
        "named": {"num_clients": 5, "clients": [1, 3, 4]},
    },
    "split": {
        ".": {"partition.kind": "iid"},
        "sorted": {"partition.kind": "label_sorted"},
        "class": {
            "partition.kind": "dirichlet_by_class",
            "partition.alpha": 0.5,
            "partition.min_examples": 4,
        },
        "client": {"partition.kind": "dirichlet_by_client", "partition.alpha": 0.5},
    },
    "weight": {".": {}, "uniform": {"weighting": "uniform"}},
    "work": {
        ".": {},
        "steps": {"num_local_epochs": 2, "num_local_steps": 3, "max_grad_norm": 0.5},
        "prox": {"num_local_epochs": 2, "prox_mu": 0.1, "length_grouped": True},
    },
    "opt": {
        ".": {"weight_decay": 0.01},
        "adam": {"optimiser": "adam"},
        "sgd": {"optimiser": "sgd", "momentum": 0.9, "learning_rate": 0.05},
        "scaffold": {"optimiser": "sgd", "learning_rate": 0.05, "scaffold": True},
    },
    "rate": {
        ".": {},
        "linear": {"schedule.kind": "linear", "server.schedule": "cosine"},
        "cosine": {
            "schedule.kind": "cosine",
            "schedule.final_learning_rate": 0.001,
            "server.schedule": "linear",
            "server.final_learning_rate": 0.01,
        },
    },
    "adapter": {
        ".": {},
        "head": {"adapter.kind": "head"},
        "lora": {
            "adapter.kind": "lora",
            "adapter.rank": 4,
            "adapter.dropout": 0.1,
            "adapter.modules_to_save": "pooler",
        },
        "rslora": {
            "adapter.kind": "lora",
            "adapter.rank": 4,
            "adapter.rslora": True,
            "adapter.targets": "all-linear",
        },
        "dora": {"adapter.kind": "dora", "adapter.rank": 4, "adapter.freeze_a": True},
    },
    "down": {
        ".": {},
        "bf16": {"download.codec": "bf16"},
        "int8": {"download.codec": "int8"},
        "nf4": {"download.codec": "nf4"},
    },
    "thin_down": {
        ".": {},
        "quarter": {"download.density": 0.25},
        "heads": {"download.density": 0.25, "download.keep_heads": True},
        "decay": {"download.density_decay": 0.5},
    },
    "up": {
        ".": {},
        "fp16": {"upload.codec": "fp16"},
        "int8": {"upload.codec": "int8"},
        "nf4": {"upload.codec": "nf4"},
        "double": {"upload.codec": "nf4_double"},
    },
    "thin_up": {
        ".": {},
        "fifth": {"upload.density": 0.2},
        "decay": {"upload.density": 0.5, "upload.density_decay": 0.5, "upload.decay_every": 2},
    },
    "sent": {
        ".": {},
        "state": {"upload.values": "state"},
        "feedback": {"upload.error_feedback": True},
    },
    "freeze": {".": {}, "client": {"client_freeze": True}, "server": {"server_freeze": True}},
    "tiers": {
        ".": {},
        "ranks": {"tiers": [{"rank": 1}, {"rank": 3}, {}]},
        "largest": {"tiers": [{"rank": 1}, {"rank": 3}, {}], "tier_ranks": "largest"},
        "links": {
            "tiers": [
                {"upload": {"codec": "int8"}, "num_local_steps": 1},
                {"download": {"density": 0.5}},
                {},
            ]
        },
    },
    "merge": {
        ".": {},
        "senders": {"merge.method": "mean_of_senders"},
        "ties": {"merge.method": "ties"},
    },
    "server": {
        ".": {"server.learning_rate": 0.7},
        "momentum": {"server.momentum": 0.9},
        "adam": {
            "server.optimiser": "adam",
            "server.learning_rate": 0.01,
            "server.bias_correction": False,
        },
        "adamw": {
            "server.optimiser": "adamw",
            "server.learning_rate": 0.01,
            "server.weight_decay": 0.1,
        },
        "adagrad": {"server.optimiser": "adagrad", "server.learning_rate": 0.01},
        "yogi": {"server.optimiser": "yogi", "server.learning_rate": 0.01},
    },
    "private": {
        ".": {},
        "clip": {"privacy.clip": 0.5},
        "noise": {"privacy.clip": 0.5, "privacy.noise_multiplier": 0.5},
        "adaptive": {
            "privacy.clip": 0.5,
            "privacy.noise_multiplier": 0.5,
            "privacy.target_quantile": 0.5,
        },
        "groups": {
            "privacy.clip": 0.5,
            "privacy.noise_multiplier": 0.5,
            "privacy.unit": "group",
            "privacy.groups_per_client": 4,
            "privacy.groups_per_round": 2,
        },
    },
    "told": {
        ".": {},
        "classes": {"per_class_metrics": True},
        "received": {"download.evaluate": True},
    },
}
"""What the names in the table stand for; a dot is what is usual."""

TABLE = """
clients split  weight  work  opt      rate   adapter down thin_down up     thin_up sent     freeze tiers   merge   server   private  told
named   client uniform .     .        cosine .       int8 quarter   .      .       .        .      .       .       .        groups   .
.       .      .       .     .        .      lora    .    quarter   .      fifth   .        server links   ties    .        .        classes
half    .      uniform .     .        .      head    int8 .         .      .       .        .      .       .       adagrad  groups   classes
.       sorted uniform .     .        .      lora    nf4  decay     .      .       .        .      .       .       adamw    groups   received
.       .      .       prox  .        cosine lora    .    .         fp16   .       state    .      largest senders momentum .        .
cohorts client .       steps .        .      lora    bf16 .         int8   .       state    .      largest .       yogi     .        .
named   .      uniform .     .        linear .       bf16 .         nf4    .       state    .      .       ties    adam     .        received
poisson .      .       .     .        .      dora    bf16 decay     double .       .        .      ranks   ties    yogi     .        classes
.       sorted uniform .     sgd      .      head    int8 .         double .       state    .      .       .       adam     clip     received
half    sorted .       .     sgd      .      rslora  .    heads     .      decay   .        client ranks   senders adagrad  .        .
half    client uniform steps .        .      .       nf4  quarter   .      .       .        server .       .       yogi     noise    received
.       class  uniform steps adam     .      .       bf16 .         double fifth   .        .      links   .       adagrad  adaptive .
cohorts client .       prox  .        .      head    .    quarter   int8   .       .        client .       ties    adagrad  .        received
named   class  .       .     sgd      .      dora    bf16 quarter   fp16   .       .        .      .       ties    adamw    .        classes
named   client uniform steps .        cosine head    int8 quarter   .      .       .        .      .       .       momentum groups   received
half    sorted .       .     .        cosine dora    int8 .         nf4    .       state    .      largest ties    momentum .        classes
poisson class  uniform prox  adam     cosine .       .    .         fp16   .       state    .      .       .       adagrad  noise    classes
cohorts .      .       steps adam     .      rslora  nf4  heads     fp16   decay   feedback .      ranks   ties    .        .        .
cohorts client uniform prox  adam     linear dora    .    heads     .      .       .        .      .       .       adam     groups   received
half    .      uniform steps .        .      rslora  nf4  quarter   int8   .       .        .      largest .       adam     clip     classes
poisson client uniform .     .        .      head    int8 decay     fp16   fifth   .        client links   .       adam     noise    .
.       client uniform .     .        .      rslora  int8 heads     nf4    decay   feedback server links   .       yogi     clip     .
half    sorted uniform steps sgd      linear dora    bf16 decay     fp16   .       .        .      links   .       .        clip     .
named   sorted .       prox  adam     cosine .       bf16 decay     int8   decay   .        server links   senders .        .        .
poisson sorted uniform steps adam     linear head    nf4  .         nf4    .       state    .      .       .       .        adaptive received
cohorts .      uniform steps sgd      cosine rslora  int8 .         nf4    .       state    .      ranks   .       adamw    noise    .
named   class  uniform .     adam     linear lora    .    heads     double decay   .        client largest .       .        noise    .
cohorts class  uniform .     .        .      rslora  bf16 decay     double fifth   .        client ranks   .       momentum adaptive .
named   client uniform prox  adam     .      lora    nf4  quarter   nf4    .       .        .      ranks   .       adagrad  clip     classes
poisson class  uniform steps sgd      linear rslora  bf16 quarter   .      .       .        server .       .       yogi     groups   received
poisson client uniform .     sgd      .      dora    nf4  heads     int8   decay   .        .      largest .       adamw    adaptive classes
half    .      uniform prox  adam     cosine lora    int8 decay     .      fifth   .        client largest .       adam     adaptive .
named   sorted uniform .     sgd      cosine head    .    quarter   fp16   fifth   .        server .       .       yogi     adaptive received
cohorts sorted .       steps .        linear dora    int8 decay     nf4    .       feedback server largest senders adagrad  .        .
.       sorted uniform .     adam     linear dora    bf16 heads     int8   fifth   .        client ranks   .       momentum noise    .
poisson class  uniform prox  sgd      cosine .       nf4  .         .      decay   feedback server links   .       momentum clip     .
cohorts class  uniform steps .        linear .       .    decay     nf4    fifth   feedback client links   .       adamw    clip     classes
half    class  .       prox  adam     .      head    bf16 quarter   double decay   feedback server .       senders adamw    .        received
poisson class  .       prox  sgd      cosine lora    int8 heads     int8   decay   feedback server ranks   senders adam     .        .
named   client uniform prox  adam     cosine rslora  nf4  .         double fifth   feedback client links   senders yogi     .        classes
poisson client .       steps scaffold cosine rslora  int8 quarter   fp16   .       .        .      links   .       adagrad  .        classes
named   .      uniform .     scaffold linear .       nf4  decay     nf4    fifth   feedback server .       .       adam     .        received
half    sorted .       prox  scaffold .      lora    bf16 heads     .      decay   .        .      .       .       adamw    .        .
.       class  .       .     scaffold .      head    .    .         double .       state    .      .       .       .        .        .
cohorts client uniform .     scaffold .      dora    nf4  .         int8   .       .        .      links   .       yogi     .        classes
.       class  uniform .     scaffold linear lora    .    .         .      .       .        .      .       .       momentum .        .
"""  # noqa: E501

HEADER, *LINES = [line.split() for line in TABLE.strip().splitlines()]
ROWS = [dict(zip(HEADER, line, strict=True)) for line in LINES]
REAL = ROWS[::9]
"""The rows that real processes run, too; to all others, processes are nothing new."""
WITHOUT_METHODS = {"task_name", "device", "precision", "data.text", "privacy.accountant"}
"""Settings whose names are tried elsewhere."""
ELSEWHERE = {
    ("partition.kind", "column"),  # test_own_table.py
    ("data.test_of", "clients"),  # test_reddit.py
    ("tier_scale", "adapter"),  # test_merges.py, as those below
    ("tier_scale", "own"),
    *(("evaluation.layout", name) for name in get_args(QuestionLayoutName)),  # test_files.py
    *(("evaluation.rule", name) for name in get_args(QuestionRule)),  # test_questions.py
    *(("stop_when.metric", name) for name in get_args(WatchedMetric)),  # test_stopping.py
    ("data_order", "fixed"),  # test_instruction.py
    *(("load.attention", name) for name in get_args(AttentionName)),
    *(("load.bits", bits) for bits in ("4", "8", "16", "32")),  # test_quantised_base.py
    *(("optimiser", name) for name in ("adamw_8bit", "paged_adamw_8bit")),
    ("merge.on", "products"),
    ("merge.trim_by", "tensor"),
    ("merge.weigh_by", "rank"),
    *(("merge.method", name) for name in MERGES if name not in ("mean", "mean_of_senders", "ties")),
}
"""Names that other files hold to the same laws; merges: test_merges.py."""


def unusual(row: dict[str, str]) -> str:
    """Name a row by what is not usual in it."""
    return "-".join(f"{column}_{name}" for column, name in row.items() if name != ".")


def changes_of(row: dict[str, str]) -> dict[str, Any]:
    """Collect what a row sets, as nested sections."""
    found: dict[str, Any] = {}
    for column, name in row.items():
        for path, value in COLUMNS[column][name].items():
            section, _, setting = path.rpartition(".")
            (found.setdefault(section, {}) if section else found)[setting] = value
    return found


def config_of(row: dict[str, str], corpus: Path) -> Config:
    return read_config(settings(corpus, **changes_of(row)))


def is_allowed(row: dict[str, str], corpus: Path) -> bool:
    try:
        config_of(row, corpus)
    except UserError:
        return False
    return True


def pairs(row: dict[str, str]) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    return combinations(row.items(), 2)


def play(
    row: dict[str, str],
    corpus: Path,
    folder: Path,
    *,
    start: Callable[[Run], Run],
    interrupt: Callable[[Run], Run],
) -> tuple[Run, Run]:
    """Run a row on one worker in one go, and on two that are interrupted and resumed."""
    changes = changes_of(row)
    whole = start(QuickRun(folder / "whole", shared=corpus, **changes))
    interrupted = interrupt(QuickRun(folder / "parts", shared=corpus, site_ids=[0, 1], **changes))
    assert 1 <= interrupted.record.last_round < 3
    return whole, start(QuickRun(folder / "parts", shared=corpus, site_ids=[0, 0, 1], **changes))


def cost_of(run: Run) -> dict[str, Any]:
    metrics = run.record.metrics
    epsilons = metrics["privacy.epsilon"]["values"] if "privacy.epsilon" in metrics else [None]
    return {
        "epsilon": epsilons[-1],
        "tiers": sum(name.startswith("validation.accuracy.tier") for name in metrics),
    }


def bytes_of(run: Run) -> dict[str, Any]:
    metrics = run.record.metrics
    return {
        "download": metrics["bytes.download"]["values"],
        "upload": metrics["bytes.upload"]["values"],
        "plain": sum(metrics["bytes.plain"]["values"]),
    }


def predicted_bytes(config: Config) -> dict[str, Any]:
    predicted = predict(config, lambda text: None)
    return {
        "download": predicted.download_bytes,
        "upload": predicted.upload_bytes,
        "plain": predicted.plain_bytes,
    }


def are_drawn_in_secret(config: Config) -> bool:
    """Say whether nobody can know the bytes before, because they depend on secret draws."""
    is_drawn = config.cohort_size(6) < 6 and not config.listed_cohorts
    varies = config.sampling == "poisson" or len(config.tiers) > 1
    return config.privacy.is_noisy and is_drawn and varies


def check_cost(run: Run, config: Config) -> None:
    assert cost_of(run) == predicted_cost(config)
    saved = [run.state(config.num_rounds, part) for part in ("state", "optimiser")]
    predicted = predict(config, lambda text: None)
    assert predicted.checkpoint_bytes == sum(t.nbytes for part in saved for t in part.values())
    if not are_drawn_in_secret(config):
        assert bytes_of(run) == predicted_bytes(config)


def predicted_cost(config: Config) -> dict[str, Any]:
    predicted = predict(config, lambda text: None)
    num_tiers = len(predicted.tiers)
    return {
        "epsilon": predicted.epsilon,
        "tiers": num_tiers if num_tiers > 1 else 0,
    }


BY_DEFAULT = ROWS[::12]
"""The rows of the default run; CI runs all."""


@pytest.mark.parametrize(
    "row",
    [pytest.param(r, marks=[] if r in BY_DEFAULT else [pytest.mark.slow]) for r in ROWS],
    ids=unusual,
)
def test_a_row_comes_to_the_same_wherever_it_runs_and_costs_what_was_predicted(
    row: dict[str, str], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    interrupt = partial(QuickRun.start_here, stop_after=1 + ROWS.index(row) % 2)
    whole, resumed = play(row, corpus, tmp_path, start=QuickRun.start_here, interrupt=interrupt)
    assert outcome(resumed) == outcome(whole)
    check_cost(whole, config_of(row, corpus))
    on_nodes = QuickRun(tmp_path / "nodes", shared=corpus, **changes_of(row))
    check_same_on_nodes(run_on_nodes(on_nodes, grid := LoopGrid([5, 9])), grid, whole)


def check_same_on_nodes(run: QuickRun, grid: LoopGrid, engine: Run) -> None:
    """Compare a run whose clients are on the nodes of Flower with one of the engine."""
    ours, theirs = run.state(3), engine.state(3)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    results = run.results()
    _, evaluation = results.pop(EVALUATION_BYTES, ((), [0.0]))  # the engine's stay in a process
    assert results == engine.results()
    assert outcome(run)["clients"] == outcome(engine)["clients"]
    if not (run.config.scaffold or run.config.privacy.is_noisy):
        assert run.digest == engine.digest
    if not run.config.privacy.is_noisy:
        of_rounds = run.record.metrics["bytes.total"]["values"][-1]
        assert grid.bytes_of_payloads == of_rounds + sum(evaluation)


@pytest.mark.slow
@pytest.mark.parametrize("row", REAL, ids=unusual)
def test_real_processes_come_to_the_same_too(
    row: dict[str, str], corpus: Path, tmp_path: Path
) -> None:
    whole, resumed = play(row, corpus, tmp_path, start=QuickRun.start, interrupt=start_and_stop)
    assert outcome(resumed) == outcome(whole)
    check_cost(whole, config_of(row, corpus))


def start_and_stop(run: Run) -> Run:
    """Start real workers and ask them to stop in round 2."""
    asked: list[int] = []

    def stop_after_round_1(run: Run) -> None:
        if not asked and run.group and any(e["event"] == "round" for e in run.events):
            run.group.request_stop(signal.SIGTERM)
            asked.append(signal.SIGTERM)

    return run.start(tick=stop_after_round_1)


def test_every_pair_is_in_the_table_or_refused(corpus: Path) -> None:
    covered = {pair for row in ROWS for pair in pairs(row)}
    missing = [
        ((first, one), (second, two))
        for first, second in combinations(COLUMNS, 2)
        for one, two in product(COLUMNS[first], COLUMNS[second])
        if ((first, one), (second, two)) not in covered
    ]
    allowed = [
        pair for pair in missing if any(is_allowed(row | dict(pair), corpus) for row in ROWS)
    ]
    assert allowed == [], "add rows with these pairs"
    print(f"{len(covered)} pairs are covered; these are refused:", *missing, sep="\n")


def test_every_name_that_a_setting_may_have_is_in_the_table(corpus: Path) -> None:
    configs = [config_of(row, corpus) for row in ROWS]
    used: dict[str, set[Any]] = defaultdict(set)
    for config in configs:
        for path, value in leaves(config.model_dump()):
            used[path].add(value if isinstance(value, str) else None)
    codecs = used["download.codec"] | used["upload.codec"]
    used |= {"download.codec": codecs, "upload.codec": codecs}
    lacking = {
        path: names
        for path, field in fields(Config)
        if path not in WITHOUT_METHODS
        and (names := {n for n in choices(field) if (path, n) not in ELSEWHERE} - used[path])
    }
    assert lacking == {}, "make these names values of a column"


def fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """List the settings of nested sections as (dotted path, field)."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}", field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
