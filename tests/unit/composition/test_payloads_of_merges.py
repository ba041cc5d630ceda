"""What a merge's row has clients send beside their updates: computed, counted, foretold."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scaling_fl.composition.federation import build
from scaling_fl.composition.prediction import predict
from scaling_fl.composition.tasks import TASKS
from scaling_fl.config import merges, read_config
from scaling_fl.config.merge_row import MergeRow
from scaling_fl.core.exchange import SingleExchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.rounds import Hooks
from scaling_fl.learning.task import Batch, LossFunction, Statistic
from scaling_fl.methods.merging.merge import Merge, Round, Updates
from scaling_fl.methods.wire.payloads import payload_size
from tests.points import Regression


def squared_gradients(model: nn.Module, loss: LossFunction, batches: Iterable[Batch]) -> Tensor:
    """Sum the squares of the gradient of every example, as a diagonal Fisher matrix does."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in parameters))
    for batch in batches:
        gradients = torch.autograd.grad(loss(model, batch).mean, parameters)
        total += torch.cat([g.flatten() for g in gradients]).square()
    return total


def of_all_parameters(model: nn.Module) -> Statistic:
    return Statistic(sum(p.numel() for p in model.parameters()), squared_gradients)


def by_squared_gradients() -> Merge:
    """Weigh every coordinate by the squared gradients there. Source: arXiv 2111.09832."""

    def merge(updates: Updates, round: Round) -> Tensor:
        weighted = [(u.vector * u.extras["squares"], u.share) for u in updates.again()]
        weights = [(u.extras["squares"], u.share) for u in updates.again()]
        return (round.total(weighted) / round.total(weights)).nan_to_num(0.0)

    return merge


def test_clients_send_what_the_row_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: client 0 ends at (0.5, 0, 0) and client 1 at (0, 0.5, 0.5), see ``tests.points``.

    There the gradients are (-1, 0, 0) and (0, -1.5, 0), since client 1 has solved its last point.
    So each of the first two coordinates is that of the one client that is sure of it.
    """
    monkeypatch.setitem(TASKS, "20newsgroups", Regression)
    here = __name__
    row = MergeRow(
        make=f"{here}:by_squared_gradients",
        private=False,
        payloads={"squares": f"{here}:of_all_parameters"},
    )
    monkeypatch.setitem(merges.MERGES, "squares", row)
    settings = {"task_name": "20newsgroups", "num_clients": 2, "optimiser": "sgd"}
    settings |= {"learning_rate": 0.25, "batch_size": 2, "num_local_epochs": 1, "num_rounds": 1}
    settings |= {"device": "cpu", "merge": {"method": "squares"}}
    config = read_config(settings)
    exchange = SingleExchange(1)
    job = {"checkpoints": str(tmp_path / "saved"), "journal": str(tmp_path / "journal.jsonl")}
    made = build(
        config,
        exchange,
        torch.device("cpu"),
        job,  # type: ignore[arg-type]
        note=lambda text: None,
        stage=lambda text: None,
    )
    reports: list[RoundReport] = []

    def record(state: GlobalState, report: RoundReport) -> GlobalState:
        reports.append(report)
        return state

    state = made.run(Hooks(record=record, progress=lambda *_: None, check=lambda: None))
    assert state.vector.tolist() == [0.5, 0.5, 0.0]
    plain = payload_size(3, None, "none")
    assert [row.upload_bytes for row in reports[0].clients] == [2 * plain] * 2
    foretold = predict(config, lambda text: None)
    assert foretold.upload_bytes == [reports[0].metrics["bytes.upload"]]
