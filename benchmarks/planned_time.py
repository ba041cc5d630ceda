"""The time that ``plan.py --time`` predicts for the rounds of a run against what they then take.

One worker plans and trains in this process, by the clock and in CPU time, which says what the
clock would show on a machine with nothing else to do. Recording the rounds is part of both.
"""

import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from federated import CPU
from setting import LONG, SMALL, Settings, is_quick, median_ratio, one_epoch, print_machine

from scaling_fl.composition.federation import build
from scaling_fl.composition.timing import measure
from scaling_fl.config import read_config
from scaling_fl.core.exchange import SingleExchange
from scaling_fl.federation.rounds import Hooks

CLOCKS: dict[str, Callable[[], float]] = {
    "by the clock": time.perf_counter,
    "CPU time": time.process_time,
}
NUM_ROUNDS = 3
TARGET = "0.8 to 1.25"


def federations() -> dict[str, Settings]:
    """Return the runs that are predicted: where steps count, clients, merges, tests or saves."""
    small = one_epoch(16, 16, SMALL)
    tests = {"data": {"max_train_examples": 16, "max_test_examples": 400}}
    return {
        "tiny, 4 clients x 16 steps": one_epoch(4, 64, LONG | {"model": "tiny"}),
        "LoRA, 4 clients x 4 steps": one_epoch(4, 16, SMALL | {"adapter": {"kind": "lora"}}),
        "16 clients x 1 step": small,
        "the same, saved once": small | {"save_every": NUM_ROUNDS},
        "the same, ties": small | {"merge": {"method": "ties"}},
        "4 clients x 1 step, 400 tests": one_epoch(4, 4, SMALL) | tests,
    }


def plan(settings: Settings) -> float:
    """Return the seconds that are predicted for all rounds."""
    config, began = read_config(settings | {"num_rounds": NUM_ROUNDS}), time.perf_counter()
    return measure(
        config,
        [0],
        device_id=0,
        num_threads=1,
        began=began,
        num_rounds=lambda: config.num_rounds,
        stage=_say_nothing,
    ).rounds


def train(settings: Settings) -> float:
    """Return the seconds that all rounds take."""
    with tempfile.TemporaryDirectory() as folder:
        federation = build(
            read_config(settings | {"num_rounds": NUM_ROUNDS}),
            SingleExchange(1),
            CPU,
            {"checkpoints": f"{folder}/checkpoints", "journal": f"{folder}/journal.jsonl"},
            note=_say_nothing,
            stage=_say_nothing,
        )
        assert federation.recorder
        record = federation.recorder.record
        began = time.perf_counter()
        federation.run(Hooks(record=record, progress=lambda *_: None, check=lambda: None))
        return time.perf_counter() - began


def _say_nothing(text: str) -> None:
    pass


def compare(title: str, settings: Settings, num_pairs: int) -> None:
    """Print what the rounds were to take and have taken, and the ratio, by both clocks."""
    for name, clock in CLOCKS.items():
        time.perf_counter = clock  # type: ignore[assignment]
        pairs = [(plan(settings), train(settings)) for _ in range(num_pairs)]
        planned, taken = zip(*pairs, strict=True)
        seconds = (
            f"{statistics.median(planned):.2f} s planned, {statistics.median(taken):.2f} taken"
        )
        ratio = f"ratio: {median_ratio(planned, taken):.2f} (target {TARGET})"
        print(f"{title}, {name}: {seconds}, {ratio}", flush=True)


def main() -> None:
    num_pairs = 1 if is_quick(__doc__) else 3
    torch.set_num_threads(1)
    print_machine()
    for title, settings in federations().items():
        compare(title, settings, num_pairs)
    print_machine()


if __name__ == "__main__":
    main()
