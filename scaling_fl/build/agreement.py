"""What all workers must have alike before the first round."""

import hashlib
from dataclasses import replace

import torch
from torch import Tensor, nn

from scaling_fl.build.data import Data
from scaling_fl.config import Config
from scaling_fl.core.errors import UserError
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.state import GlobalState, Memory
from scaling_fl.federation.delivery import MASK
from scaling_fl.federation.privacy import CLIP
from scaling_fl.learning.models.adapters import frozen_digest
from scaling_fl.runtime.record.recorder import Recorder


def share_state(
    state: GlobalState,
    recorder: Recorder | None,
    exchange: Exchange,
    *,
    num_threads: int,
    pinned: bool,
) -> GlobalState:
    """Give every worker worker 0's state and, unless it is set, the earlier rounds' threads.

    Bits depend on the number of threads, so a resumed run keeps what it began with.
    """
    if recorder:
        state, earlier = recorder.restore(state)
        num_threads = num_threads if pinned or not earlier else earlier
        recorder.num_threads = num_threads
    device = state.vector.device
    numbers = torch.tensor([state.round, state.total_bytes, num_threads], device=device)
    round_number, total_bytes, threads = (int(n) for n in exchange.broadcast(numbers))
    torch.set_num_threads(threads)
    return replace(
        state,
        vector=exchange.broadcast(state.vector),
        optimiser={name: exchange.broadcast(t) for name, t in sorted(state.optimiser.items())},
        memory=_share_memory(state.memory, exchange, device),
        round=round_number,
        total_bytes=total_bytes,
    )


def _share_memory(memory: Memory, exchange: Exchange, device: torch.device) -> Memory:
    """Give every worker what worker 0's checkpoint remembers, which only that one knows of."""
    mine = memory.to_tensors() if exchange.rank == 0 else {}
    rows = [
        {"name": name, "shape": list(t.shape), "type": str(t.dtype).removeprefix("torch.")}
        for name, t in sorted(mine.items())
    ]
    shared: dict[str, Tensor] = {}
    for row in exchange.gather(rows):
        name, dtype = row["name"], getattr(torch, row["type"])
        empty = torch.empty(row["shape"], dtype=dtype, device=device)
        shared[name] = exchange.broadcast(mine.get(name, empty))
    return Memory.from_tensors(shared)


def forget_unused(state: GlobalState, config: Config) -> GlobalState:
    """Drop what earlier rounds left for settings that the job no longer has."""
    used = {CLIP: config.privacy.target_quantile is not None, MASK: config.server_freeze}
    of_server = {name: t for name, t in state.memory.server.items() if used.get(name)}
    of_clients = state.memory.clients if config.upload.error_feedback else {}
    return replace(state, memory=Memory(of_server, of_clients))


def check_same_data(data: Data, exchange: Exchange) -> None:
    """Refuse to train when workers do not agree on the data and on who owns what.

    Machines may hold different copies of a file, and draws of floating-point shares may differ
    between kinds of processor.

    Raises:
        UserError: the workers' data differ.
    """
    parts = hashlib.sha256(b"|".join(part.tobytes() for part in data.parts)).hexdigest()
    mine = {"train": data.train.key, "test": data.test.key, "parts": parts}
    found = {(row["train"], row["test"], row["parts"]) for row in exchange.gather([mine])}
    if len(found) > 1:
        raise UserError(
            "all machines must have the same data, tokenizer and versions of the libraries, got "
            f"{len(found)} different ones; compare train_path, test_path and model on each of them."
        )


def check_same_model(model: nn.Module, exchange: Exchange) -> str:
    """Return the hash of the frozen weights, which no vector carries from worker to worker.

    Raises:
        UserError: the workers' models differ.
    """
    digest = frozen_digest(model)
    if len({row["frozen"] for row in exchange.gather([{"frozen": digest}])}) > 1:
        raise UserError(
            "all machines must have the same weights of model, got different ones; compare the "
            "model's folder or revision on each of them."
        )
    return digest
