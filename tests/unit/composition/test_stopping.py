"""The metric that ends a run is one that the task reports, or the run does not begin."""

import numpy as np
import pytest

from scaling_fl.composition.data import Data
from scaling_fl.composition.stopping import check_metric
from scaling_fl.config import Config, read_config
from scaling_fl.core.errors import InputError
from scaling_fl.learning.training.local import LocalTrainer
from tests.points import Regression


def config_of(metric: str) -> Config:
    settings = {"task_name": "20newsgroups", "num_rounds": 4, "num_clients": 2}
    return read_config(settings | {"stop_when": {"metric": metric, "patience": 2}})


def new_trainer() -> LocalTrainer:
    task = Regression()
    return LocalTrainer(task.load_model(), task.loss, optimiser="sgd")


def check(metric: str, trainer: LocalTrainer) -> None:
    task = Regression()
    train, test = task.load_examples("train"), task.load_examples("test")
    partitions = [np.arange(2), np.arange(2, 4)]
    data = Data(task=task, train=train, test=test, partitions=partitions)
    check_metric(config_of(metric), trainer, data)


@pytest.mark.parametrize(
    ("metric", "reported"),
    [
        ("validation.accuracy", "validation.loss"),
        ("train.accuracy", "train.loss, train.distance"),
    ],
)
def test_what_a_task_does_not_report_is_refused_before_it_is_trained(
    metric: str, reported: str
) -> None:
    with pytest.raises(InputError) as told:
        check(metric, new_trainer())
    assert str(told.value) == (
        f"stop_when.metric must be one that the task reports ({reported}), got {metric}; take one "
        "of them, or drop stop_when.metric."
    )


@pytest.mark.parametrize("metric", ["validation.loss", "train.loss"])
def test_what_a_task_reports_is_found_out_without_training(metric: str) -> None:
    trainer = new_trainer()
    before = trainer.vector.clone()
    check(metric, trainer)
    assert trainer.vector.equal(before)
