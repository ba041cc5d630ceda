"""What codecs and masks take of a client's round: MiniLM with LoRA, 10 steps, one thread.

A round is the server's encoding of the state, the client's decoding, 10 AdamW steps of 16 long
texts cut at 64 tokens, the client's encoding, the server's decoding and its step. What is counted
is all but the steps, so it is a little more than the codecs. The settings take turns, and every
round goes on from the state that the one before has left.
"""

import statistics
import time

from federated import Federated
from setting import LONG, Settings, is_quick, one_epoch, print_machine, use_one_core

TARGET = 0.10
PLAIN = one_epoch(1, 10, LONG) | {"adapter": {"kind": "lora", "rank": 8, "alpha": 16.0}}


def both_ways(**direction: object) -> Settings:
    return PLAIN | {"download": direction, "upload": direction}


WAYS = {
    "nothing": PLAIN,
    "int8": both_ways(codec="int8"),
    "nf4": both_ways(codec="nf4"),
    "FLASC 1/4": both_ways(density=0.25),
    "FLASC 1/4, nf4": both_ways(codec="nf4", density=0.25),
}


class Stopwatch:
    """CPU seconds at the first step and at the last sign of training."""

    def __init__(self) -> None:
        self.began, self.first_step, self.trained = time.process_time(), 0.0, 0.0

    def check(self) -> None:
        self.first_step = self.first_step or time.process_time()

    def progress(self, *_: object) -> None:
        self.trained = time.process_time()


def play_round(federated: Federated) -> tuple[float, float]:
    """Run the next round; returns the CPU seconds of all but the training, and of all."""
    watch = Stopwatch()
    federated.state, _ = federated.next_round(watch.check, watch.progress)
    whole = time.process_time() - watch.began
    return whole - (watch.trained - watch.first_step), whole


def main() -> None:
    num_rounds = 2 if is_quick(__doc__) else 5
    use_one_core()
    federations = {name: Federated(settings) for name, settings in WAYS.items()}
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    print_machine()
    for _ in range(num_rounds + 1):
        for name, federated in federations.items():
            rounds[name].append(play_round(federated))
    print(f"{'CPU time':>14} {'beside ms':>9} {'round s':>8} {'share':>7}")
    shares = {}
    for name, times in rounds.items():
        # In the first round the kernels are new and B is zero.
        beside, whole = (statistics.median(column) for column in zip(*times[1:], strict=True))
        shares[name] = statistics.median(part / total for part, total in times[1:])
        print(f"{name:>14} {1000 * beside:>9.2f} {whole:>8.2f} {shares[name]:>7.2%}")
    print_machine()
    print(f"ratio: {max(shares.values()):.4f} (target {TARGET})")


if __name__ == "__main__":
    main()
