"""Federated averaging against an independent implementation in plain PyTorch."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from one_process import QuickRun
from torch.nn.functional import cross_entropy

from scaling_fl.composition.data import load_data
from scaling_fl.composition.model import load_trainer
from scaling_fl.core.seeding import derive, numpy_generator


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_equals_an_independent_federated_averaging(
    corpus: Path, tmp_path: Path, optimiser: str
) -> None:
    changes = {"optimiser": optimiser, "weight_decay": 0.01, "prox_mu": 0.05, "max_grad_norm": 1.0}
    run = QuickRun(
        tmp_path / "run",
        shared=corpus,
        num_rounds=2,
        partition={"kind": "dirichlet_by_class", "alpha": 0.7, "min_examples": 3},
        **changes,
    ).start_here()
    torch.set_num_threads(1)
    data = load_data(run.config, 4, stage=lambda text: None)
    model = load_trainer(run.config, data, torch.device("cpu"), note=print, stage=print).model
    weights = [len(partition) for partition in data.partitions]
    for round_number in (1, 2):
        trained = [
            train_one(copy.deepcopy(model), run, data, client, round_number) for client in range(4)
        ]
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                moves = [
                    w * (dict(m.named_parameters())[name] - parameter).double()
                    for w, m in zip(weights, trained, strict=True)
                ]
                parameter += (torch.stack(moves).sum(0) / sum(weights)).float()
    state = run.state(2)
    reference = dict(model.named_parameters())
    assert state.keys() == reference.keys()
    for name, value in state.items():
        if "key.bias" in name and optimiser != "sgd":
            continue  # softmax cancels it: its gradient is rounding noise, which Adam blows up
        # Adam divides by the root of squared gradients, so rounding noise in small ones shows.
        slack = 1e-8 if optimiser == "sgd" else 1e-5
        assert torch.allclose(value, reference[name].detach(), rtol=0, atol=slack), name
    loss, accuracy = evaluate(model, data.test)
    metrics = run.results()
    assert metrics["validation.loss"][1][-1] == pytest.approx(loss, abs=1e-5)
    assert metrics["validation.accuracy"][1][-1] == pytest.approx(accuracy)


def train_one(model, run, data, client, round_number):  # type: ignore[no-untyped-def]
    config = run.config
    anchor = [p.detach().clone() for p in model.parameters()]
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimiser = kind[config.optimiser](
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=False
    )
    torch.manual_seed(derive(config.seed, "dropout", round_number, client))
    order = numpy_generator(config.seed, "order", round_number, client, 0).permutation(
        data.partitions[client]
    )
    model.train()
    for start in range(0, len(order), config.batch_size):
        ids, mask, labels = pad(data.train, order[start : start + config.batch_size])
        logits = model(input_ids=ids, attention_mask=mask).logits
        pull = sum(((p - a) ** 2).sum() for p, a in zip(model.parameters(), anchor, strict=True))
        optimiser.zero_grad()
        (cross_entropy(logits, labels) + config.prox_mu / 2 * pull).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm, foreach=False)
        optimiser.step()
    return model


def pad(examples, indices):  # type: ignore[no-untyped-def]
    texts = [
        examples.token_ids[examples.offsets[i] : examples.offsets[i + 1]].tolist() for i in indices
    ]
    width = math.ceil(max(map(len, texts)) / 8) * 8
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    return ids, mask, torch.tensor(np.asarray(examples.labels)[indices])


def evaluate(model, examples):  # type: ignore[no-untyped-def]
    model.eval()
    with torch.no_grad():
        ids, mask, labels = pad(examples, list(range(len(examples))))
        logits = model(input_ids=ids, attention_mask=mask).logits
    accuracy = (logits.argmax(-1) == labels).double().mean()
    return float(cross_entropy(logits, labels)), float(accuracy)
