"""What must be equal on all workers before the first round."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from scaling_fl.composition.data import Data, hash_of_owners
from scaling_fl.config import Config
from scaling_fl.config.merges import row_of
from scaling_fl.core.errors import InputError, UserError
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.state import GlobalState, Memory
from scaling_fl.federation.base import FACTORS, HOLDERS, MOVED
from scaling_fl.federation.client_end import RESIDUAL
from scaling_fl.federation.downloads import MASK
from scaling_fl.federation.personal import PERSONAL
from scaling_fl.federation.privacy import CLIP
from scaling_fl.federation.remote import NODE_TURN
from scaling_fl.federation.scaffold import CONTROL
from scaling_fl.learning.models.adapters import frozen_digest
from scaling_fl.runtime.record.recorder import Recorder


def broadcast_state(
    state: GlobalState,
    recorder: Recorder | None,
    exchange: Exchange,
    *,
    num_threads: int,
    wanted_threads: int | None,
    note: Callable[[str], None],
) -> GlobalState:
    """Give every worker the state of worker 0 and the number of threads.

    ``num_threads`` is what a job that begins takes, ``wanted_threads`` what the settings say.

    Raises:
        InputError: the settings name another number of threads than that of the rounds before.
        CheckpointMismatch, CheckpointError: the checkpoints cannot be continued.
    """
    device = state.vector.device
    if recorder:
        state, earlier = recorder.restore(state)
        if earlier and device.type == "cpu":
            num_threads = _threads_of_before(earlier, num_threads, wanted_threads, note)
        recorder.num_threads = num_threads
    numbers = torch.tensor([state.round, state.total_bytes, num_threads], device=device)
    round_number, total_bytes, threads = (int(n) for n in exchange.broadcast(numbers))
    torch.set_num_threads(threads)
    return replace(
        state,
        vector=exchange.broadcast(state.vector),
        optimiser={name: exchange.broadcast(t) for name, t in sorted(state.optimiser.items())},
        memory=_broadcast_memory(state.memory, exchange, device),
        round=round_number,
        total_bytes=total_bytes,
    )


def _threads_of_before(
    earlier: int, here: int, wanted: int | None, note: Callable[[str], None]
) -> int:
    """Keep the number of threads, because on a CPU the last bits of results depend on it."""
    if wanted not in (None, earlier):
        raise InputError(
            f"num_threads must stay {earlier}, as in the rounds before, got {wanted}; leave it "
            "out, or start anew with another job_name or checkpoints_dir."
        )
    if earlier != here:
        note(
            f"{earlier} thread{'s' * (earlier > 1)} for each worker, as in the rounds before, "
            f"though this machine has cores for {here}: results depend on the number"
        )
    return earlier


def _broadcast_memory(memory: Memory, exchange: Exchange, device: torch.device) -> Memory:
    """Give every worker the memory in the checkpoint, which only worker 0 has read."""
    mine = memory.to_tensors() if exchange.rank == 0 else {}
    rows = [
        {"name": name, "shape": list(t.shape), "type": str(t.dtype).removeprefix("torch.")}
        for name, t in sorted(mine.items())
    ]
    tensors: dict[str, Tensor] = {}
    for row in exchange.gather(rows):
        name, dtype = row["name"], getattr(torch, row["type"])
        empty = torch.empty(row["shape"], dtype=dtype, device=device)
        tensors[name] = exchange.broadcast(mine.get(name, empty))
    return Memory.from_tensors(tensors)


def forget_unused(state: GlobalState, config: Config, *, is_remote: bool = False) -> GlobalState:
    """Remove from the memory what belongs to settings that the job no longer has."""
    belongs = {
        CLIP: config.privacy.target_quantile is not None,
        MASK: config.server_freeze,
        RESIDUAL: config.upload.error_feedback,
        PERSONAL: bool(row_of(config.merge.method).personal),
        CONTROL: config.scaffold,
        NODE_TURN: is_remote,
        # Whatever the merge is from now on, the base stays where it has moved to.
        **dict.fromkeys((MOVED, FACTORS, HOLDERS), True),
    }

    used = [name for name, is_used in belongs.items() if is_used]
    return replace(state, memory=state.memory.only(used, state.memory.clients))


def check_same_data(data: Data, exchange: Exchange) -> None:
    """Check that all workers have the same data and the same partitions.

    Two machines may have different copies of a file, and two kinds of processor may draw different
    partitions, because the draws use floating-point shares.

    Raises:
        UserError: the data or the partitions of two workers differ.
    """
    owned = hash_of_owners(data.partitions)
    beside = " ".join(each.examples.key for each in data.beside)
    mine = {"train": data.train.key, "test": data.test.key, "partitions": owned, "beside": beside}
    found = {tuple(row.values()) for row in exchange.gather([mine])}
    if len(found) > 1:
        raise UserError(
            "all machines must have the same data, tokenizer and versions of the libraries, got "
            f"{len(found)} different ones; compare train_path, test_path and model on each machine."
        )


def check_same_model(model: nn.Module, exchange: Exchange) -> str:
    """Check that all workers have the same frozen weights, and return the hash of the weights.

    Raises:
        UserError: the frozen weights of two workers differ.
    """
    digest = frozen_digest(model)
    if len({row["frozen"] for row in exchange.gather([{"frozen": digest}])}) > 1:
        raise UserError(
            "model must have the same weights on all machines, got different ones; compare the "
            "folder or the revision of the model on each machine."
        )
    return digest
