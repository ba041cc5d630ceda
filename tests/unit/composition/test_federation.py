"""The composition root: every name that the configuration allows is built, and nothing else."""

from typing import Any, get_args

import pytest
import torch

from scaling_fl.composition.agreement import forget_unused
from scaling_fl.composition.clients import make_rounds
from scaling_fl.composition.federation import choose_device
from scaling_fl.composition.tasks import TASKS, make_task
from scaling_fl.config import Config, read_config, types
from scaling_fl.core.errors import UserError
from scaling_fl.core.state import GlobalState, Memory
from scaling_fl.core.vector import Layout
from scaling_fl.federation.privacy import CLIP
from scaling_fl.learning.questions.layouts import LAYOUTS
from scaling_fl.learning.training.optimisers import OPTIMISERS
from scaling_fl.methods import partitioning
from scaling_fl.methods.sampling import COHORT_SAMPLINGS, GROUP_SAMPLINGS
from scaling_fl.methods.schedules import SCHEDULES
from scaling_fl.methods.server_optimisers import SERVER_OPTIMISERS
from scaling_fl.methods.weighting import WEIGHTINGS
from scaling_fl.methods.wire.codecs import CODECS


def make_config(**changes: Any) -> Config:
    return read_config({"task_name": "20newsgroups", "model": "tiny", **changes})


@pytest.mark.parametrize(
    ("names", "table"),
    [
        (types.TaskName, TASKS),
        (types.OptimiserName, OPTIMISERS),
        (types.ServerOptimiserName, SERVER_OPTIMISERS),
        (types.ScheduleKind, SCHEDULES),
        (types.WeightingName, WEIGHTINGS),
        (types.PartitionKind, partitioning.PARTITIONERS),
        (types.SamplingKind, COHORT_SAMPLINGS),
        (types.SamplingKind, GROUP_SAMPLINGS),
        (types.CodecName, CODECS),
        (types.QuestionLayoutName, LAYOUTS),
    ],
)
def test_the_tables_have_the_names_that_the_configuration_allows(names: Any, table: Any) -> None:
    assert sorted(table) == sorted(get_args(names))


@pytest.mark.parametrize(
    "task_name", sorted(TASKS.keys() - {"table", "images", "docvqa", *types.LANGUAGE_TASKS})
)
def test_every_classification_has_labels_of_its_own(task_name: str) -> None:
    model = {"model": "tiny"} if task_name in types.IMAGE_TASKS else {}
    config = make_config(task_name=task_name, train_path=__file__, test_path=__file__, **model)
    labels = make_task(config).meaning["labels"]
    assert len(labels) == len(set(labels)) >= 2


@pytest.mark.parametrize(
    ("wanted", "num_gpus", "site", "expected"),
    [
        ("cpu", 2, 1, "cpu"),
        ("auto", 0, 5, "cpu"),
        ("auto", 2, 1, "cuda:1"),
        ("cuda", 2, 0, "cuda:0"),
    ],
)
def test_a_site_is_a_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, wanted: str, num_gpus: int, site: int, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    assert str(choose_device(wanted, site)) == expected


@pytest.mark.parametrize(
    ("wanted", "num_gpus", "site", "message"),
    [
        ("cuda", 0, 0, "device=cuda needs a GPU, got none on this machine; set device=cpu."),
        ("auto", 2, 2, "site_ids must name GPUs of this machine, 0 to 1, got 2; change site_ids"),
    ],
)
def test_a_gpu_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, wanted: str, num_gpus: int, site: int, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    with pytest.raises(UserError, match=message):
        choose_device(wanted, site)


class Counts:
    """Clients of so many examples each."""

    def __init__(self, *num_examples: int) -> None:
        self._num_examples = num_examples

    def num_examples(self, client: int) -> int:
        return self._num_examples[client]


def rounds_of(*num_examples: int, **changes: Any) -> Any:
    config = make_config(num_clients=len(num_examples), **changes)
    layout = Layout(("w",), ((7,),))
    return make_rounds(config, Counts(*num_examples), layout, len(num_examples), None)  # type: ignore[arg-type]


def test_shares_are_those_of_the_cohort_alone() -> None:
    rounds = rounds_of(10, 20, 30, 40, clients_per_round=2)
    assert rounds.shares([1, 2]) == {1: 0.4, 2: 0.6}
    assert rounds_of(10, 20, weighting="uniform").shares([0, 1]) == {0: 0.5, 1: 0.5}
    assert all(len(rounds.cohort(number)) == 2 for number in range(1, 9))


def test_learning_rates_go_from_the_first_to_the_final_one() -> None:
    schedule = {"kind": "linear", "final_learning_rate": 0.01}
    rounds = rounds_of(5, 5, learning_rate=0.1, num_rounds=3, schedule=schedule)
    rates = [rounds.learning_rate(number) for number in (1, 2, 3)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.01)
    constant = rounds_of(5, 5, learning_rate=0.1, num_rounds=3)
    assert [constant.learning_rate(number) for number in (1, 2, 3)] == [0.1] * 3


def test_what_a_setting_left_behind_goes_with_the_setting() -> None:
    left = {"privacy.clip": 1, "download.mask": 2, "upload.residual.3": 3, "personal.3": 4}
    for changes, kept in (
        ({}, set()),
        ({"upload": {"codec": "nf4", "error_feedback": True}}, {"upload.residual.3"}),
        ({"adapter": {"kind": "lora"}, "merge": {"method": "share_a"}}, {"personal.3"}),
        ({"server_freeze": True, "download": {"density": 0.5}}, {"download.mask"}),
        ({"weighting": "uniform", "privacy": {"clip": 1.0, "target_quantile": 0.5}}, {CLIP}),
    ):
        memory = Memory.from_tensors({name: torch.ones(size) for name, size in left.items()})
        config = read_config({"task_name": "20newsgroups", **changes})
        state = forget_unused(GlobalState(torch.zeros(2), memory=memory), config)
        assert state.memory.to_tensors().keys() == kept
