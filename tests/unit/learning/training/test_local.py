"""Local training against a plain PyTorch loop, and what one turn leaves behind: nothing."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from scaling_fl.learning.task import Batch
from scaling_fl.learning.tasks.classification.scoring import loss
from scaling_fl.learning.training.local import LocalTrainer, TrainingResult
from tests.tiny_models import make_batch, make_classification

NUM_LABELS = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"optimiser": "sgd"},
    "momentum_and_decay": {"optimiser": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "adam": {"optimiser": "adam", "weight_decay": 0.1},
    "adamw": {"optimiser": "adamw", "weight_decay": 0.1},
    "clipped": {"optimiser": "sgd", "max_grad_norm": 0.05},
    "prox": {"optimiser": "sgd", "prox_mu": 0.7},
    "everything": {"optimiser": "adamw", "weight_decay": 0.1, "max_grad_norm": 0.5, "prox_mu": 0.7},
}


def make_model(*, dropout: bool = True) -> torch.nn.Module:
    model = make_classification(num_labels=NUM_LABELS).load_model()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and not dropout:
            module.p = 0.0
    return model


def make_batches(number: int = 4, *, size: int = 5, seed: int = 0) -> list[Batch]:
    """Make batches with padding; the last one is smaller."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for index in range(number):
        rows = size if index < number - 1 else 2
        ids = torch.randint(5, 200, (rows, 8), generator=generator)
        lengths = torch.randint(2, 9, (rows, 1), generator=generator)
        mask = (torch.arange(8) < lengths).long()
        labels = torch.randint(NUM_LABELS, (rows,), generator=generator)
        batches.append(make_batch(ids * mask, mask, labels))
    return batches


def plain_loop(
    model: torch.nn.Module,
    batches: list[Batch],
    *,
    learning_rate: float,
    seed: int,
    optimiser: str,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    max_grad_norm: float | None = None,
    prox_mu: float = 0.0,
    correction: Tensor | None = None,
) -> tuple[Tensor, float, float]:
    """Train as the textbooks do, the pull as a term of the loss; return vector, loss, accuracy."""
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimiser]
    options = {"momentum": momentum} if optimiser == "sgd" else {}
    stepper = kind(
        model.parameters(), lr=learning_rate, weight_decay=weight_decay, foreach=False, **options
    )
    anchors = [p.detach().clone() for p in model.parameters()]
    torch.manual_seed(seed)
    model.train()
    losses, right, seen = 0.0, 0, 0
    for batch in batches:
        tensors = dict(batch.tensors)
        labels = tensors.pop("labels")
        logits = model(**tensors).logits
        mean = cross_entropy(logits, labels)
        pull = sum(((p - a) ** 2).sum() for p, a in zip(model.parameters(), anchors, strict=True))
        stepper.zero_grad()
        (mean + prox_mu / 2 * pull).backward()
        if max_grad_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm, foreach=False)
        if correction is not None:
            parts = correction.split([p.numel() for p in model.parameters()])
            for parameter, part in zip(model.parameters(), parts, strict=True):
                assert parameter.grad is not None
                parameter.grad += part.view_as(parameter)
        stepper.step()
        losses += mean.item() * len(batch)
        right += int((logits.argmax(-1) == labels).sum())
        seen += len(batch)
    return flat(model), losses / seen, right / seen


def flat(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def train(trainer: LocalTrainer, start: Tensor, **changes: Any) -> tuple[Tensor, TrainingResult]:
    options = {"batches": make_batches(), "learning_rate": 1e-2, "seed": 4} | changes
    result = trainer.train(start, options.pop("batches"), **options)
    return trainer.vector.clone(), result


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_equals_a_plain_loop(name: str) -> None:
    model = make_model()
    reference, mean, accuracy = plain_loop(
        copy.deepcopy(model), make_batches(), learning_rate=1e-2, seed=4, **SETTINGS[name]
    )
    trainer = LocalTrainer(model, loss, **SETTINGS[name])
    vector, result = train(trainer, trainer.vector.clone())
    difference = (vector - reference).abs()
    # Adam divides by the root of squared gradients: where those are rounding noise, noise shows.
    if name in ("adam", "adamw", "everything"):
        key_bias = torch.cat(
            [torch.full((p.numel(),), "key.bias" in n) for n, p in model.named_parameters()]
        )
        difference = difference[~key_bias]
        assert (difference < 1e-5).all()
    else:
        assert (difference < 2e-7).all()
    assert result.metrics == {"loss": pytest.approx(mean, rel=1e-5), "accuracy": accuracy}
    assert result.num_steps == 4


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_turn_does_not_depend_on_the_turns_before_it(name: str) -> None:
    trainer = LocalTrainer(make_model(), loss, **SETTINGS[name])
    start = trainer.vector.clone()
    first, _ = train(trainer, start)
    train(trainer, start + 0.5, batches=make_batches(7, seed=1), learning_rate=0.5, seed=9)
    again, _ = train(trainer, start)
    assert torch.equal(first, again)


def test_the_pull_is_mu_times_the_way_from_the_received_state() -> None:
    """One step of the two differs by nothing, the second by lr * mu * (w1 - w0)."""
    vectors = {}
    for mu in (0.0, 0.5):
        for steps in (1, 2):
            trainer = LocalTrainer(make_model(dropout=False), loss, optimiser="sgd", prox_mu=mu)
            start = trainer.vector.clone()
            vectors[mu, steps], _ = train(
                trainer, start, batches=make_batches(5)[:steps], learning_rate=0.1
            )
    assert torch.equal(vectors[0.5, 1], vectors[0.0, 1])
    expected = 0.1 * 0.5 * (vectors[0.0, 1] - start)
    assert torch.allclose(vectors[0.0, 2] - vectors[0.5, 2], expected, rtol=0, atol=3e-7)
    assert float(expected.norm()) > 1e-4


@pytest.mark.parametrize("name", ["sgd", "clipped", "decay"])
def test_a_correction_is_added_to_the_gradient_of_every_step(name: str) -> None:
    options = SETTINGS.get(name, {"optimiser": "sgd", "weight_decay": 0.1})
    model = make_model()
    trainer = LocalTrainer(copy.deepcopy(model), loss, **options)
    start = trainer.vector.clone()
    correction = torch.randn(len(start), generator=torch.Generator().manual_seed(3))
    reference, _, _ = plain_loop(
        model, make_batches(), learning_rate=1e-2, seed=4, correction=correction, **options
    )
    vector, _ = train(trainer, start, correction=correction)
    assert (vector - reference).abs().max() < 5e-7
    uncorrected, _ = train(trainer, start)
    assert (vector - uncorrected).abs().max() > 0.1


def test_dropout_follows_the_seed() -> None:
    trainer = LocalTrainer(make_model(), loss, optimiser="sgd")
    start = trainer.vector.clone()
    first, _ = train(trainer, start, seed=1)
    torch.rand(3)
    assert torch.equal(train(trainer, start, seed=1)[0], first)
    assert not torch.equal(train(trainer, start, seed=2)[0], first)


def test_the_received_state_is_left_as_it_is() -> None:
    trainer = LocalTrainer(make_model(), loss, optimiser="adamw", prox_mu=0.1)
    start = trainer.vector.clone()
    kept = start.clone()
    train(trainer, start)
    assert torch.equal(start, kept)


def test_frozen_parameters_are_no_part_of_the_vector_and_never_move() -> None:
    model = make_model()
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    trainer = LocalTrainer(model, loss, optimiser="adamw", weight_decay=0.5)
    assert not any("embeddings" in name for name in trainer.layout.names)
    train(trainer, trainer.vector.clone())
    after = model.state_dict()
    assert all(torch.equal(after[n], v) for n, v in before.items() if "embeddings" in n)
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])


def test_bf16_computes_otherwise_and_keeps_fp32() -> None:
    results = {}
    for dtype in (None, torch.bfloat16):
        trainer = LocalTrainer(
            make_model(dropout=False), loss, optimiser="sgd", autocast_dtype=dtype
        )
        vector, result = train(trainer, trainer.vector.clone(), learning_rate=0.1)
        assert vector.dtype == torch.float32
        results[dtype] = vector, result.loss
    assert not torch.equal(results[None][0], results[torch.bfloat16][0])
    assert results[None][1] == pytest.approx(results[torch.bfloat16][1], rel=0.02)


def test_no_batches_are_no_step() -> None:
    trainer = LocalTrainer(make_model(), loss, optimiser="adamw", weight_decay=0.5)
    start = trainer.vector + 1.0
    vector, result = train(trainer, start, batches=[])
    assert torch.equal(vector, start)
    assert result == TrainingResult(metrics={"loss": 0.0}, num_steps=0, num_seen=0)


def test_progress_tells_steps_and_the_loss_of_the_last_one() -> None:
    trainer = LocalTrainer(make_model(), loss, optimiser="sgd")
    seen: list[tuple[int, float]] = []
    train(trainer, trainer.vector.clone(), progress=lambda step, loss: seen.append((step, loss)))
    assert seen[0][0] == 1
    assert seen[0][1] == pytest.approx(1.1, abs=0.3)  # log 3
