"""Training at a client's own scale against a plain PEFT model of the client's rank."""

import pytest
import torch
from torch import nn

from scaling_fl.learning.models.adapters import adapt
from scaling_fl.learning.task import Batch
from scaling_fl.learning.tasks.classification.scoring import loss
from scaling_fl.learning.training.local import LocalTrainer
from tests.tiny_models import make_adapter
from tests.unit.learning.training.test_local import make_batches, make_model

ALPHA, RANK, OWN_RANK = 16, 4, 2


def adapted(rank: int) -> nn.Module:
    return adapt(make_model(dropout=False), make_adapter(rank=rank, alpha=ALPHA), heads=[], seed=5)


def pairs(model: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter]]:
    found = dict(model.named_parameters())
    return [(p, found[n.replace("lora_A", "lora_B")]) for n, p in found.items() if "lora_A" in n]


def train_plainly(model: nn.Module, batches: list[Batch], optimiser: str) -> None:
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimiser]
    trained = [p for p in model.parameters() if p.requires_grad]
    stepper = kind(trained, lr=0.05, weight_decay=0.0)
    model.train()
    for batch in batches:
        stepper.zero_grad()
        loss(model, batch).mean.backward()
        stepper.step()


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_client_of_a_smaller_rank_trains_as_a_model_of_that_rank(optimiser: str) -> None:
    whole, own = adapted(RANK), adapted(OWN_RANK)
    scale, own_scale = ALPHA / RANK, ALPHA / OWN_RANK
    with torch.no_grad():
        for (a, b), (own_a, own_b) in zip(pairs(whole), pairs(own), strict=True):
            b.normal_(std=0.1)
            a[OWN_RANK:] = 0.0
            b[:, OWN_RANK:] = 0.0
            own_a.copy_(a[:OWN_RANK])
            own_b.copy_(b[:, :OWN_RANK] * scale / own_scale)
    trainer = LocalTrainer(whole, loss, optimiser=optimiser)
    batches = make_batches()
    held = trainer.vector.nonzero().squeeze(1)
    trainer.train(
        trainer.vector.clone(),
        batches,
        learning_rate=0.05,
        seed=1,
        trainable=held,
        adapter_scale=own_scale / scale,
    )
    train_plainly(own, batches, optimiser)
    for (a, b), (own_a, own_b) in zip(pairs(whole), pairs(own), strict=True):
        # AdamW divides by the root of squares, which enlarges what rounding leaves.
        assert torch.allclose(scale * b @ a, own_scale * own_b @ own_a, atol=1e-4)
        assert not a[OWN_RANK:].any()
        assert not b[:, OWN_RANK:].any()
    assert whole.get_submodule(QUERY).scaling == {"default": scale}  # as it was before


QUERY = "bert.encoder.layer.0.attention.self.query"
