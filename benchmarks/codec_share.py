"""What codecs and masks take of a client's round: MiniLM with LoRA, 10 steps, one thread.

A round is the server's encoding of the state, the client's decoding, 10 AdamW steps of 16 long
texts cut at 64 tokens, the client's encoding and the server's decoding. The settings take turns,
and every round goes on from the state that the one before has left.
"""

import statistics
import time

import numpy as np
from setting import (
    LEARNING_RATE,
    SEED,
    is_quick,
    load_model,
    print_machine,
    read_examples,
    use_one_core,
)
from torch import Tensor

from scaling_fl.core.seeding import numpy_generator
from scaling_fl.federation.link import Direction, Link
from scaling_fl.learning.models.adapters import Adapter, adapt
from scaling_fl.learning.task import Batch
from scaling_fl.learning.tasks.classification.family import beside_the_encoder
from scaling_fl.learning.tasks.classification.scoring import loss
from scaling_fl.learning.training.batches import epoch_batches
from scaling_fl.learning.training.local import LocalTrainer

NUM_STEPS, BATCH_SIZE, MAX_SEQ_LEN, TARGET = 10, 16, 64, 0.10
ADAPTER = Adapter(
    kind="lora",
    rank=8,
    alpha=16.0,
    dropout=0.0,
    targets=None,
    freeze_a=False,
    rslora=False,
    modules_to_save=(),
)
WAYS = {
    "int8": Direction(codec="int8"),
    "nf4": Direction(codec="nf4"),
    "FLASC 1/4": Direction(density=0.25),
    "FLASC 1/4, nf4": Direction(codec="nf4", density=0.25),
}


def read_batches() -> list[Batch]:
    examples = read_examples(
        "long", NUM_STEPS * BATCH_SIZE, model="minilm", max_seq_len=MAX_SEQ_LEN
    )
    order = epoch_batches(
        examples.lengths,
        np.arange(len(examples)),
        batch_size=BATCH_SIZE,
        rng=numpy_generator(SEED, "order"),
    )
    return [examples.batch(indices) for indices in order]


def play_round(
    trainer: LocalTrainer, link: Link, state: Tensor, batches: list[Batch], number: int
) -> tuple[float, float]:
    """Step the state by one client's round; returns the CPU seconds of the link and of all."""
    times = [time.process_time()]
    start = link.download(state, number)
    times.append(time.process_time())
    trainer.train(start.received, batches, learning_rate=LEARNING_RATE, seed=number)
    times.append(time.process_time())
    update = link.upload(trainer.vector, start, number)
    times.append(time.process_time())
    state += update.vector
    return times[3] - times[2] + times[1] - times[0], times[3] - times[0]


def main() -> None:
    num_rounds = 2 if is_quick(__doc__) else 5
    use_one_core()
    batches = read_batches()
    assert len(batches) == NUM_STEPS
    model = load_model("minilm", kind="long", max_seq_len=MAX_SEQ_LEN)
    adapted = adapt(model, ADAPTER, heads=beside_the_encoder(model), seed=SEED)
    trainer = LocalTrainer(adapted, loss, optimiser="adamw")
    states = {name: trainer.vector.clone() for name in WAYS}
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    print_machine()
    for number in range(1, num_rounds + 2):
        for name, way in WAYS.items():
            rounds[name].append(play_round(trainer, Link(way, way), states[name], batches, number))
    print(f"{trainer.vector.numel()} trained parameters; CPU time")
    print(f"{'':>14} {'codec ms':>8} {'round s':>8} {'share':>7}")
    shares = {}
    for name, times in rounds.items():
        # In the first round the kernels are new and B is zero.
        codec, whole = (statistics.median(column) for column in zip(*times[1:], strict=True))
        shares[name] = statistics.median(part / total for part, total in times[1:])
        print(f"{name:>14} {1000 * codec:>8.2f} {whole:>8.2f} {shares[name]:>7.2%}")
    print_machine()
    print(f"ratio: {max(shares.values()):.4f} (target {TARGET})")


if __name__ == "__main__":
    main()
