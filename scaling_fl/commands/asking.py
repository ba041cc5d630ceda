"""Questions to a saved language model: ``scripts/evaluate.py --questions`` and ``--harness``."""

from collections.abc import Sequence
from typing import Any

import torch

from scaling_fl.commands.endings import Misused, stage
from scaling_fl.commands.evaluation_request import EvaluationRequest, changes_of
from scaling_fl.composition.federation import choose_device
from scaling_fl.composition.own_models import model_of
from scaling_fl.composition.restored import evaluate_vector, put, restore, settings_of
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import Config, ConfigurationError
from scaling_fl.config.evaluation_rules import evaluation_problems
from scaling_fl.core.errors import InputError
from scaling_fl.core.json_text import json_text
from scaling_fl.learning.questions.harness import evaluate_by_harness
from scaling_fl.learning.task import Measurement
from scaling_fl.learning.tasks.instruction.family import InstructionTuning
from scaling_fl.reporting.evaluation import metrics_text
from scaling_fl.runtime.tracking.places import Saved, open_saved

_OF_TEST_DATA = ("task_name", "test_path", "text", "text_pair", "label", "max_test_examples")
_OF_QUESTIONS = ("layout", "rule", "max_questions")


def ask(request: EvaluationRequest) -> str:
    """Ask a saved model questions of files and tasks of the harness; returns the result as text.

    Raises:
        UserError: with one sentence.
    """
    _check(request)
    stage(f"loading {request.checkpoint}")
    saved = open_saved(request.checkpoint, stage)
    config = settings_of(saved, _settings(request, saved))
    if problems := evaluation_problems(config):
        raise ConfigurationError(problems)
    task = language_task(saved, config)
    measured = task.load_measurements()
    for note in filter(None, (each.note for each in measured)):
        stage(note)
    device = choose_device(config.device, 0)
    if saved.num_threads and device.type == "cpu":
        torch.set_num_threads(saved.num_threads)  # the last bits of sums depend on it
    stage(f"loading model {config.model}")
    trainer = restore(saved, config, task, device)
    vector = model_of(saved, request.client, saved.checkpoint.vector, node=request.node)
    metrics: dict[str, float] = {}
    if measured:
        stage(f"asking {_asked(measured)}")
        metrics |= evaluate_vector(trainer, vector, measured, batch_size=config.val_batch_size)
    if request.harness:
        put(saved, vector, trainer)
        stage(f"asking {request.harness} of lm-evaluation-harness")
        metrics |= evaluate_by_harness(
            trainer.model.eval(),
            task.tokenizer,
            request.harness.split(","),
            folder=request.harness_folder,
            batch_size=config.val_batch_size,
            max_questions=request.max_questions,
        )
    subjects = [name for each in measured for name in _by_subject(each, metrics)]
    if not request.per_class:
        metrics = {name: value for name, value in metrics.items() if name not in subjects}
    if request.json:
        return json_text(_facts(request, saved, config, measured) | {"metrics": metrics})
    what = [f"{config.model} on {_asked(measured)}"] if measured else []
    return "\n".join([saved.where, *what, metrics_text(metrics)])


def language_task(saved: Saved, config: Config) -> InstructionTuning:
    """Make the task of a run whose model answers in words.

    Raises:
        InputError: it is of another kind.
    """
    task = make_task(config)
    if not isinstance(task, InstructionTuning):
        raise InputError(
            f"CHECKPOINT must be of a task that trains a language model, and {saved.where} is of "
            f"{config.task_name}; give another one."
        )
    return task


def _check(request: EvaluationRequest) -> None:
    for name in (*_OF_TEST_DATA, "tiers"):
        if getattr(request, name):
            option = f"--{name.replace('_', '-')}"
            raise Misused(
                f"{option} is about test data, and --questions and --harness ask others; leave "
                f"{option} out."
            )
    needs = {name: "--questions" for name in _OF_QUESTIONS if not request.questions}
    if request.harness:
        needs.pop("max_questions", None)
    else:
        needs["harness_folder"] = "--harness"
    for name, other in needs.items():
        if getattr(request, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise Misused(f"{option} needs {other}; give it, or leave {option} out.")


def _settings(request: EvaluationRequest, saved: Saved) -> dict[str, Any]:
    given = {name: getattr(request, name) for name in ("questions", *_OF_QUESTIONS)}
    chosen = {name: value for name, value in given.items() if value is not None}
    return {**changes_of(request, saved), "evaluation": chosen if request.questions else {}}


def _asked(measured: Sequence[Measurement]) -> str:
    return ", ".join(f"{len(each.examples)} questions of {each.name}" for each in measured)


def _by_subject(each: Measurement, metrics: dict[str, float]) -> list[str]:
    begin = f"validation.{each.name}."
    return [n for n in metrics if n.startswith(begin) and "." in n.removeprefix(begin)]


def _facts(
    request: EvaluationRequest, saved: Saved, config: Config, measured: Sequence[Measurement]
) -> dict[str, Any]:
    asked = {
        "questions": config.evaluation.files,
        "layout": config.evaluation.layout,
        "rule": config.evaluation.rule,
        "num_questions": {each.name: len(each.examples) for each in measured},
    }
    return {
        "checkpoint": saved.where,
        "round": saved.checkpoint.round,
        "digest": saved.checkpoint.digest,
        "model": config.model,
        **(asked if measured else {}),
        **({"harness": request.harness.split(",")} if request.harness else {}),
        "max_seq_len": config.max_seq_len,
        "batch_size": config.val_batch_size,
    }
