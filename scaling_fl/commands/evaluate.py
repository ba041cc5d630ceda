"""The command ``scripts/evaluate.py``: evaluate a saved state on its task's or other test data."""

import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from scaling_fl.commands.asking import ask
from scaling_fl.commands.endings import Misused, end, show, stage
from scaling_fl.commands.evaluation_request import EvaluationRequest, changes_of
from scaling_fl.composition.federation import choose_device
from scaling_fl.composition.own_models import model_of, own_parts
from scaling_fl.composition.restored import (
    evaluate_vector,
    received_by_tier,
    restore,
    settings_of,
    with_owners,
)
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import Config
from scaling_fl.core.errors import UserError
from scaling_fl.core.json_text import json_text
from scaling_fl.core.metric_names import is_of_all
from scaling_fl.learning.task import Examples, Task, of_test
from scaling_fl.learning.text.labelled import DataError
from scaling_fl.reporting.evaluation import class_table, metrics_text
from scaling_fl.runtime.tracking.places import Saved, open_saved


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was evaluated, on what, and what came out, per class as well."""

    saved: Saved
    config: Config
    device: torch.device
    metrics: dict[str, float]
    num_examples: list[int]
    """Test examples of each label; a single number if the task has no labels."""

    @property
    def overall(self) -> dict[str, float]:
        """The metrics that are not about one class; those of a tier are named by their end."""
        return {
            name: value
            for name, value in self.metrics.items()
            if is_of_all(re.sub(r"\.tier\d+$", "", name))
        }


def main(options: Mapping[str, Any]) -> int:
    """Run the command with its parsed options; returns the exit code."""
    return end(partial(_run, EvaluationRequest(**options)))


def _run(request: EvaluationRequest) -> None:
    with redirect_stdout(sys.stderr):  # what libraries print is no result
        found = ask(request) if request.asks else _evaluated(request)
    show(found)


def _evaluated(request: EvaluationRequest) -> str:
    evaluation = evaluate(request)
    return _as_json(evaluation, request) if request.json else _as_text(evaluation, request)


def evaluate(request: EvaluationRequest) -> Evaluation:
    """Evaluate a saved state as its run did, but for what the request changes.

    Raises:
        UserError: with one sentence.
    """
    stage(f"loading {request.checkpoint}")
    saved = open_saved(request.checkpoint, stage)
    _check_per_class(request, saved)
    config = settings_of(saved, changes_of(request, saved))
    task = make_task(config, labels=saved.label_names)
    _check_labels(saved, config.task_name, task)
    device = choose_device(config.device, 0)
    if saved.num_threads and device.type == "cpu":
        torch.set_num_threads(saved.num_threads)  # the last bits of sums depend on it
    stage(f"reading {config.task_name}")
    examples = _load_test(task, config)
    if caveat := task.caveat(examples):
        stage(caveat)
    stage(f"loading model {config.model}")
    trainer = restore(saved, config, task, device)
    own = own_parts(saved) if request.client is None else None
    if own:
        stage(f"reading {config.task_name} for training, which tells whose the test examples are")
        own = with_owners(own, saved, config, task, examples)
    stage(f"evaluating {len(examples)} examples")
    vectors = {"": saved.checkpoint.vector}
    if request.tiers:
        received = received_by_tier(saved)
        vectors |= {f".tier{tier}": vector for tier, vector in enumerate(received)}
    metrics: dict[str, float] = {}
    for suffix, vector in vectors.items():
        found = evaluate_vector(
            trainer,
            vector if own else model_of(saved, request.client, vector, node=request.node),
            [of_test(task, examples)],
            batch_size=config.val_batch_size,
            own=own,
        )
        metrics |= {f"{name}{suffix}": value for name, value in found.items()}
    everything = task.describe(examples, [np.arange(len(examples))])
    (num_examples,) = everything.fields.get("histograms", [[len(examples)]])
    return Evaluation(
        saved=saved, config=config, device=device, metrics=metrics, num_examples=num_examples
    )


def _check_per_class(request: EvaluationRequest, saved: Saved) -> None:
    if request.per_class and not saved.label_names:
        raise Misused(
            f"--per-class needs a run whose task has labels, and that of {saved.where} has none; "
            "leave it out."
        )


def _load_test(task: Task, config: Config) -> Examples:
    try:
        return task.load_examples("test")
    except DataError as error:
        if config.data.test_share is None:
            raise
        raise DataError(
            f"{str(error).rstrip('.')}, or give other test data than what was held out of it, by "
            "--test-path."
        ) from None


def _check_labels(saved: Saved, task_name: str, task: Task) -> None:
    labels = task.meaning.get("labels", [])
    if bool(labels) != bool(saved.label_names):
        raise UserError(
            f"task_name must be of the kind that {saved.where} was trained on, "
            f"{saved.fingerprint['task_name']}, got {task_name}; choose such a task."
        )
    if labels != saved.label_names:
        raise UserError(
            f"task_name must have the labels that {saved.where} was trained on "
            f"({_listed(saved.label_names)}), and {task_name} has {_listed(labels)}; choose a task "
            "with the same labels."
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 6 else [*names[:5], f"... {len(names)} in all"])


def _as_text(evaluation: Evaluation, request: EvaluationRequest) -> str:
    saved, config = evaluation.saved, evaluation.config
    lines = [
        f"{saved.where}",
        f"{config.model} on {sum(evaluation.num_examples)} test examples of {config.task_name}",
        metrics_text(evaluation.overall),
    ]
    if request.per_class:
        table = class_table(evaluation.metrics, saved.label_names, evaluation.num_examples)
        lines += ["", table]
    return "\n".join(lines)


def _as_json(evaluation: Evaluation, request: EvaluationRequest) -> str:
    saved, config = evaluation.saved, evaluation.config
    found = evaluation.metrics if request.per_class else evaluation.overall
    result = {
        "checkpoint": saved.where,
        "round": saved.checkpoint.round,
        "digest": saved.checkpoint.digest,
        "model": config.model,
        "task_name": config.task_name,
        "test_path": config.test_path,
        "num_examples": sum(evaluation.num_examples),
        "max_seq_len": config.max_seq_len,
        "batch_size": config.val_batch_size,
        "device": str(evaluation.device),
        "num_threads": torch.get_num_threads(),
        "metrics": found,
    }
    if request.per_class:
        result["examples"] = dict(zip(saved.label_names, evaluation.num_examples, strict=True))
    return json_text(result)
