"""A task is a value: a task of another kind is trained, evaluated and run, and nothing changes."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from scaling_fl.composition.data import load_data
from scaling_fl.composition.federation import build, make_evaluator
from scaling_fl.composition.model import load_model
from scaling_fl.composition.tasks import TASKS, make_task
from scaling_fl.config import read_config
from scaling_fl.conformance.workers import on_workers
from scaling_fl.core.errors import UserError
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.evaluator import Evaluator
from scaling_fl.federation.rounds import Hooks
from scaling_fl.learning.models.activations import activation_bytes
from scaling_fl.learning.models.adapters import adapt
from scaling_fl.learning.task import Batch, BatchLoss, Measurement, Task, of_test
from scaling_fl.learning.tasks.classification.family import Classification
from scaling_fl.learning.text.labelled import DataError, Labelled
from scaling_fl.learning.training.local import LocalTrainer
from tests.points import TRAIN, Points, Regression
from tests.tiny_models import make_adapter, make_classification

TASK: Task = Regression()
CPU = torch.device("cpu")


def make_trainer() -> LocalTrainer:
    return LocalTrainer(TASK.load_model(), TASK.loss, optimiser="sgd")


def test_data_without_an_example_are_refused(tmp_path: Path) -> None:
    nothing = Labelled([], np.zeros(0, dtype=np.int64))
    corpus: Any = SimpleNamespace(
        LABELS=("a", "b"), load=lambda *_, **__: nothing, source_digest=lambda *_, **__: "0"
    )
    options = replace(make_classification().options, cache_dir=tmp_path)
    options = replace(options, paths={"test": None}, max_examples={"test": None})
    with pytest.raises(DataError, match="the test data of mine must hold an example, and hold"):
        Classification("mine", corpus, options).load_examples("test")


def test_a_step_by_hand() -> None:
    """From w = 0: errors -2 and -1, loss 2.5, gradient (0, -2, -2), and w is moved by a fourth."""
    trainer = make_trainer()
    batch = Points(TRAIN).batch(np.array([2, 3]))
    result = trainer.train(torch.zeros(3), [batch], learning_rate=0.25, seed=0)
    assert trainer.vector.tolist() == [0.0, 0.5, 0.5]
    assert result.metrics == {"loss": 2.5, "distance": 1.5}
    assert (result.num_steps, result.num_seen) == (1, 2)


def test_what_weighs_a_batch_is_the_tasks_matter() -> None:
    """Three tokens of loss 1 and one of loss 5 have the mean loss 2, in whatever batches."""

    def of_tokens(model: torch.nn.Module, batch: Batch) -> BatchLoss:
        losses = batch.tensors["losses"] + 0.0 * model(torch.zeros(3))
        number = torch.tensor(len(losses))
        return BatchLoss(losses.mean(), number, {"twice": 2 * losses.detach().sum()})

    def batch(*losses: float) -> Batch:
        return Batch({"losses": torch.tensor(losses)}, np.array([0]))

    trainer = LocalTrainer(TASK.load_model(), of_tokens, optimiser="sgd")
    batches = [batch(1.0, 1.0, 1.0), batch(5.0)]
    result = trainer.train(torch.zeros(3), batches, learning_rate=0.1, seed=0)
    assert result.metrics == {"loss": 2.0, "twice": 4.0}
    assert result.num_seen == 2


@pytest.mark.parametrize("detailed", [False, True])
def test_an_evaluation_by_hand(detailed: bool) -> None:
    """w = 1/4 in all places gives 0.75, 1.5 and 1 for 1, 2 and 2; squared errors 1/16, 1/4, 1."""
    examples = TASK.load_examples("test")
    evaluate = Evaluator(make_trainer(), [of_test(TASK, examples)], batch_size=2, detailed=detailed)
    found = evaluate(torch.full((3,), 0.25), SingleExchange(1))
    more = {"validation.points": 3.0} if detailed else {}
    assert found == {"validation.loss": (1 / 16 + 1 / 4 + 1) / 3} | more


def test_workers_evaluate_to_the_same_and_one_may_have_no_batch() -> None:
    examples, vector = TASK.load_examples("test"), torch.full((3,), 0.25)

    def evaluate(exchange: Exchange) -> dict[str, float]:
        evaluator = Evaluator(
            make_trainer(), [of_test(TASK, examples)], batch_size=2, detailed=True
        )
        return evaluator(vector, exchange)

    assert on_workers(3, evaluate) == [evaluate(SingleExchange(1))] * 3


def measured_twice() -> list[Measurement]:
    """The test points, and beside them five others by another measure."""

    def count(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return (model(batch.tensors["x"]) >= 1).sum().reshape(1)

    def metrics(counts: torch.Tensor, detailed: bool) -> dict[str, float]:
        return {"large": float(counts), "detailed": float(detailed)}

    others = Points([([n, n, 0], 0) for n in range(5)], key="others")
    return [
        of_test(TASK, TASK.load_examples("test")),
        Measurement(others, 1, count, metrics, "x.y"),
    ]


@pytest.mark.parametrize("num_workers", [1, 2, 4, 7])
def test_what_is_measured_beside_the_test_examples_has_a_name_of_its_own(num_workers: int) -> None:
    """w = 1/4 gives 0, 0.5, 1, 1.5 and 2 for the five others."""

    def evaluate(exchange: Exchange) -> dict[str, float]:
        evaluator = Evaluator(make_trainer(), measured_twice(), batch_size=2, detailed=False)
        assert evaluator.num_batches == [2, 3]
        return evaluator(torch.full((3,), 0.25), exchange)

    loss = (1 / 16 + 1 / 4 + 1) / 3
    expected = {"validation.loss": loss, "validation.x.y.large": 3, "validation.x.y.detailed": 0}
    assert on_workers(num_workers, evaluate) == [expected] * num_workers


def test_a_measurement_may_want_small_batches() -> None:
    test, more = measured_twice()
    measured = [test, replace(more, most_at_once=1)]
    evaluate = Evaluator(make_trainer(), measured, batch_size=512, detailed=False)
    assert evaluate.num_batches == [1, 5]
    assert evaluate(torch.full((3,), 0.25), SingleExchange(1))["validation.x.y.large"] == 3


def test_a_model_is_evaluated_without_dropout_and_gradients() -> None:
    modes = []

    class Watched(Regression):
        def count(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
            modes.append(model.training or torch.is_grad_enabled())
            return super().count(model, batch)

    trainer, task = make_trainer(), Watched()
    trainer.model.train()
    Evaluator(trainer, [of_test(task, task.load_examples("test"))], batch_size=1, detailed=False)(
        torch.zeros(3), SingleExchange(1)
    )
    assert modes == [False] * 3


def test_a_whole_job_of_another_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clients of two points each; the mean of their updates is that of the whole data.

    The gradient at 0 is -2 * (sum of x y) / 4 = (-1, -1, -1), so a step of 1/4 gives w = 1/4. Of
    the four first losses 1, 1, 4 and 1 the mean is 1.75, of the distances 1, 1, 2 and 1 it is 1.25.
    """
    monkeypatch.setitem(TASKS, "20newsgroups", Regression)
    settings = {"task_name": "20newsgroups", "num_clients": 2, "optimiser": "sgd"}
    settings |= {"learning_rate": 0.25, "batch_size": 2, "num_local_epochs": 1, "num_rounds": 1}
    config = read_config(settings | {"device": "cpu"})
    exchange = SingleExchange(1)
    job = {"checkpoints": str(tmp_path / "saved"), "journal": str(tmp_path / "journal.jsonl")}
    notes: list[str] = []
    federation = build(config, exchange, CPU, job, note=notes.append, stage=notes.append)  # type: ignore[arg-type]
    reports: list[RoundReport] = []

    def record(state: GlobalState, report: RoundReport) -> GlobalState:
        reports.append(report)
        return state

    state = federation.run(
        Hooks(
            record=record,
            progress=lambda *_: None,
            check=lambda: None,
        )
    )
    (report,) = reports
    assert report.metrics["train.loss"] == 1.75
    assert report.metrics["train.distance"] == 1.25
    assert "train.accuracy" not in report.metrics
    assert report.metrics["validation.loss"] == (1 / 16 + 1 / 4 + 1) / 3
    assert [row.metrics.keys() for row in report.clients] == [{"loss", "distance"}] * 2
    assert state.vector.tolist() == [0.25] * 3
    journal = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    (partition,) = (event for event in journal if event["event"] == "partition")
    assert partition["sizes"] == [2, 2]
    assert "4 points" in notes


def test_a_job_measures_what_its_task_offers_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithMore(Regression):
        def load_measurements(self) -> list[Measurement]:
            return measured_twice()[1:]

    monkeypatch.setitem(TASKS, "20newsgroups", WithMore)
    config = read_config({"task_name": "20newsgroups", "device": "cpu"})
    data = load_data(config, 2, lambda text: None)
    found = make_evaluator(config, make_trainer(), data)(torch.zeros(3), SingleExchange(1))
    assert [*found] == ["validation.loss", "validation.x.y.large", "validation.x.y.detailed"]


def test_what_a_step_keeps_is_measured_on_the_tasks_own_batch() -> None:
    """The squares of the errors keep the errors, matmul keeps x: 4 and 12 bytes a point."""
    sizes = [
        activation_bytes(TASK.load_model(), TASK.loss, TASK.largest_batch(size)) for size in (8, 16)
    ]
    assert sizes[1] - sizes[0] == 8 * (4 + 12)


def test_only_what_a_task_calls_a_head_is_trained_beside_an_adapter() -> None:
    """A classifier's head was made for the task; the head of a language model was not."""
    config = read_config(
        {"task_name": "20newsgroups", "model": "tiny", "adapter": {"kind": "head"}}
    )
    classifier = load_model(config, make_task(config))
    assert trainable(classifier) == ["classifier.weight", "classifier.bias"]
    shape = transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    model = transformers.GPT2LMHeadModel(shape)
    adapted = adapt(model, make_adapter(), heads=TASK.heads(model), seed=1)
    assert trainable(adapted)
    assert all(".lora_" in name for name in trainable(adapted))
    with pytest.raises(
        UserError, match=r"adapter\.modules_to_save must name .* adapter\.kind=lora"
    ):
        adapt(model, make_adapter(kind="head"), heads=TASK.heads(model), seed=1)


def trainable(model: torch.nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]
