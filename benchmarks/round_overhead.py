"""One federated round against a bare PyTorch loop that does the same optimiser steps.

4 clients x 10 steps of 16 long texts, cut at 64 tokens, MiniLM, AdamW, one worker, one thread.
"""

import statistics
import time

import torch
from setting import (
    LEARNING_RATE,
    SEED,
    Worker,
    is_quick,
    load_model,
    median_ratio,
    print_machine,
    tokenizer_of,
    use_one_core,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scaling_fl.core.seeding import derive, numpy_generator
from scaling_fl.learning.batches import Batch, collate, epoch_batches

NUM_CLIENTS, STEPS, BATCH_SIZE, MAX_SEQ_LEN = 4, 10, 16, 64
TARGET, EXCHANGE_TARGET = 1.05, 0.02


def bare_round(
    model: nn.Module, start: dict[str, Tensor], clients: list[list[Batch]]
) -> tuple[float, int]:
    """Train each client's batches from the same start; returns the mean loss and the steps."""
    losses = []
    for client, batches in enumerate(clients):
        model.load_state_dict(start)
        model.train()
        torch.manual_seed(derive(SEED, "dropout", 1, client))  # the masks of the federated round
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True
        )
        for batch in batches:
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            loss = cross_entropy(logits, batch.labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
    return float(torch.stack(losses).mean()), len(losses)


def collated(worker: Worker) -> list[list[Batch]]:
    """Collate the batches of the federated round beforehand."""
    pad_token_id = tokenizer_of("minilm").pad_token_id
    orders = [
        epoch_batches(
            worker.examples.lengths,
            part,
            batch_size=BATCH_SIZE,
            rng=numpy_generator(SEED, "order", 1, client, 0),
        )
        for client, part in enumerate(worker.parts)
    ]
    return [
        [collate(worker.examples, indices, pad_token_id=pad_token_id) for indices in order]
        for order in orders
    ]


def main() -> None:
    pairs = 2 if is_quick(__doc__) else 7
    use_one_core()
    worker = Worker(
        "minilm",
        "long",
        num_clients=NUM_CLIENTS,
        steps=STEPS,
        batch_size=BATCH_SIZE,
        max_seq_len=MAX_SEQ_LEN,
    )
    clients = collated(worker)
    model = load_model("minilm", kind="long", max_seq_len=MAX_SEQ_LEN)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bare_round(model, start, [clients[0][:2]])  # pages and kernels are warm from here on
    worker.round()
    wall: dict[str, list[float]] = {"round": [], "bare": []}
    cpu: dict[str, list[float]] = {"round": [], "bare": []}
    exchange = []
    print_machine()
    print(f"{'pair':>4} {'round s':>8} {'bare s':>8} {'ratio':>6} {'by CPU time':>11} exchange")
    for pair in range(pairs):
        for side in ("round", "bare") if pair % 2 else ("bare", "round"):
            began, began_cpu = time.perf_counter(), time.process_time()
            if side == "round":
                report = worker.round()
            else:
                loss, steps = bare_round(model, start, clients)
            wall[side].append(time.perf_counter() - began)
            cpu[side].append(time.process_time() - began_cpu)
        check_same_work(report.metrics["train.loss"], loss, steps)
        exchange.append(report.metrics["time.exchange_seconds"] / wall["round"][-1])
        print(
            f"{pair:>4} {wall['round'][-1]:>8.2f} {wall['bare'][-1]:>8.2f} "
            f"{wall['round'][-1] / wall['bare'][-1]:>6.3f} "
            f"{cpu['round'][-1] / cpu['bare'][-1]:>11.3f} {exchange[-1]:.2%}"
        )
    print_machine()
    print(f"by CPU time: {median_ratio(cpu['round'], cpu['bare']):.3f}")
    print(f"exchange: {statistics.median(exchange):.2%} (target {EXCHANGE_TARGET:.0%})")
    print(f"ratio: {median_ratio(wall['round'], wall['bare']):.3f} (target {TARGET})")


def check_same_work(federated_loss: float, bare_loss: float, bare_steps: int) -> None:
    assert bare_steps == NUM_CLIENTS * STEPS
    assert abs(federated_loss - bare_loss) < 1e-5, (federated_loss, bare_loss)


if __name__ == "__main__":
    main()
