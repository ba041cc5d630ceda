"""NF4 and top-k against bitsandbytes and torch: 22 million parameters, one thread.

Both sides take turns, and NF4 must come to the same bits on both. bitsandbytes decodes into new
memory, the only way it has on a CPU; a client's update is decoded into memory at hand. Top-k of
the two may differ where magnitudes are equal, so the magnitudes they kept are compared.
"""

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from setting import is_quick, median_ratio, print_machine, use_one_core

from scaling_fl.methods.wire import nf4
from scaling_fl.methods.wire.sparsity import count_kept, top_k

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its import is deprecated in its own dependencies
    from bitsandbytes import functional as bitsandbytes

SIZE = 22_000_000
Work = Callable[[], Any]


def timed(work: Work) -> tuple[float, float]:
    """Measure by the clock and in CPU time; what the work made is freed outside."""
    began, began_cpu = time.perf_counter(), time.process_time()
    made = work()
    times = time.perf_counter() - began, time.process_time() - began_cpu
    del made
    return times


def compare(name: str, theirs: Work, ours: Work, *, target: float, num_pairs: int) -> None:
    """Print how many times faster ours is; each first, unmeasured call touches the memory."""
    works = {"theirs": theirs, "ours": ours}
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in works}
    for number in range(num_pairs + 1):
        # The two take turns at being the first.
        for side in sorted(works, reverse=bool(number % 2)):
            times = timed(works[side])
            if number:
                found[side].append(times)
    ratio, cpu_ratio = (
        median_ratio([pair[clock] for pair in found["theirs"]], [p[clock] for p in found["ours"]])
        for clock in (0, 1)
    )
    least = {side: min(cpu for _, cpu in times) for side, times in found.items()}
    print(f"{name}: theirs {least['theirs']:.4f} s, ours {least['ours']:.4f} s at best")
    print(f"{name} by CPU time: {cpu_ratio:.2f}")
    print(f"{name} ratio: {ratio:.2f} (target {target})")


def compare_nf4(vector: torch.Tensor, num_pairs: int) -> None:
    def quantise() -> Any:
        return bitsandbytes.quantize_4bit(vector, quant_type="nf4", blocksize=64)

    packed, state = quantise()
    codes, scales = nf4.quantise(vector)
    assert torch.equal(torch.from_numpy(codes), packed.ravel()), "the codes differ"
    assert torch.equal(torch.from_numpy(scales), state.absmax), "the scales differ"
    compare("NF4 encode", quantise, lambda: nf4.quantise(vector), target=1.0, num_pairs=num_pairs)

    def dequantise() -> Any:
        return bitsandbytes.dequantize_4bit(packed, state)

    at_hand = torch.empty(SIZE)

    def into_new_memory() -> torch.Tensor:
        out = torch.from_numpy(np.empty(SIZE, dtype=np.float32))
        nf4.dequantise(codes, scales, out)
        return out

    def into_memory_at_hand() -> None:
        nf4.dequantise(codes, scales, at_hand)

    into_memory_at_hand()
    assert torch.equal(at_hand, dequantise().ravel()), "the values differ"
    for name, ours in (("new", into_new_memory), ("at hand", into_memory_at_hand)):
        compare(f"NF4 decode, memory {name}", dequantise, ours, target=1.0, num_pairs=4 * num_pairs)


def compare_top_k(vector: torch.Tensor, density: float, target: float, num_pairs: int) -> None:
    k = count_kept(SIZE, density)

    def theirs() -> torch.Tensor:
        return torch.topk(vector.abs(), k).indices

    def ours() -> torch.Tensor:
        return top_k(vector, k)

    kept = [vector[indices].abs().sort().values for indices in (theirs(), ours())]
    assert torch.equal(*kept), "the magnitudes that are kept differ"
    compare(f"top-k {density:.0%}", theirs, ours, target=target, num_pairs=num_pairs)


def main() -> None:
    num_pairs = 3 if is_quick(__doc__) else 9
    use_one_core()
    vector = torch.randn(SIZE, generator=torch.Generator().manual_seed(1)) * 1e-3
    print_machine()
    compare_nf4(vector, num_pairs)
    compare_top_k(vector, 0.01, 3.0, num_pairs)
    compare_top_k(vector, 0.25, 1.0, num_pairs)
    print_machine()


if __name__ == "__main__":
    main()
