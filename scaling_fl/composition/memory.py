"""The memory that a worker will need, from the configuration: a lower bound, without libraries."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from scaling_fl.composition.server import make_server_optimiser
from scaling_fl.config import Config
from scaling_fl.config.merges import row_of
from scaling_fl.core.linears import linears_of
from scaling_fl.core.vector import Layout
from scaling_fl.federation.link import Link
from scaling_fl.federation.server import keeps_factors
from scaling_fl.learning.models.activations import activation_bytes
from scaling_fl.learning.models.quantised import stored_bytes
from scaling_fl.learning.options import Load
from scaling_fl.learning.task import Statistic, Task
from scaling_fl.methods.pairs import adapter_size, pairs_of

FP32, FP64, INT64 = 4, 8, 8
"""Bytes of a coordinate of a vector, and of a coordinate of an exact sum."""
_OF_8_BITS = 2 + 2 * FP32 / 256  # of each of two moments a byte, and a scale for a block
_OF_STATE = {
    **{"sgd": 0.0, "adam": 2.0 * FP32, "adamw": 2.0 * FP32},
    **dict.fromkeys(("adamw_8bit", "paged_adamw_8bit"), _OF_8_BITS),
}
"""Bytes of a coordinate in the state of the clients' optimiser."""


def server_bytes(config: Config, size: int, num_seen: int) -> int:
    """Count the bytes of the global state beside the vector.

    They are moments, the mask, the clip, and the residuals and control variates of the clients.
    """
    moments = make_server_optimiser(config).init(torch.zeros(size, device="meta"))
    found = sum(value.nbytes for value in moments.values())
    found += FP32 * size * (config.server_freeze + config.scaffold)
    found += FP64 * (config.privacy.target_quantile is not None)
    of_client = config.upload.error_feedback + config.scaffold
    return found + FP32 * size * num_seen * of_client


def memory_of_training(
    config: Config, task: Task, model: nn.Module, size: int, beside: int
) -> dict[str, int]:
    """Count the bytes of a training step, and of the global state with ``beside`` its vector."""
    of_state = _OF_STATE[config.optimiser] + FP32 * bool(config.momentum)
    return {
        "model": stored_bytes(model, Load(**config.load.model_dump())),
        "global state": FP32 * size + beside,
        "gradients": FP32 * size * (1 + config.scaffold),  # and their correction
        "clients' optimiser": int(of_state * size),
        "activations of a full batch": activation_bytes(
            model, task.loss, task.largest_batch(config.batch_size)
        ),
    }


def memory_of_merging(
    config: Config,
    model: nn.Module,
    *,
    links: Sequence[Link],
    statistics: Sequence[Statistic],
    largest_cohort: int,
    largest_upload: int,
) -> dict[str, int]:
    """Count the bytes of the sums, and of what is kept of clients until all have trained.

    ``largest_upload`` are the bytes that all clients of a round send.
    """
    layout, row = Layout.of(model.named_parameters()), row_of(config.merge.method)
    num_workers = len(set(config.site_ids))
    num_clients = math.ceil(largest_cohort / num_workers)  # of the busiest worker, at least
    merged = _size_of_products(layout) if config.merge.on == "products" else layout.size
    found = {"exact sums": INT64 * _num_summed(config, layout, row.num_sums, merged, model)}
    if row.keeps != "nothing":
        buffer = FP32 * layout.size  # into which an update is decoded again
        found["kept updates"] = math.ceil(largest_upload / num_workers) + buffer
    if row.keeps == "columns":
        found["decoded updates"] = FP32 * merged * num_clients
    if statistics:
        found["statistics"] = _of_statistics(statistics)
    if num_clients > 1 and not config.privacy.clip and keeps_factors(pairs_of(layout), links):
        before = num_clients - 1  # those that trained before the last one
        found["clients' factors"] = FP32 * before * adapter_size(layout)
    return found


def _num_summed(
    config: Config, layout: Layout, num_sums: int, merged: int, model: nn.Module
) -> int:
    """Count the coordinates of all sums that there are at once."""
    beside = layout.size * config.scaffold
    if config.merge.method == "regmean":
        beside += sum(each.num_pairs + each.num_in * each.num_out for each in linears_of(model))
    if config.merge.on == "products":
        return layout.size + merged * num_sums + beside
    return layout.size * num_sums + beside


def _size_of_products(layout: Layout) -> int:
    """Count the coordinates of the products of all pairs, and those outside the pairs."""
    products = sum(out * num_in for out, num_in in (pair.shape for pair in pairs_of(layout)))
    return products + layout.size - adapter_size(layout)


def _of_statistics(statistics: Sequence[Statistic]) -> int:
    """Count what a client has of its largest statistic beside what it sends.

    Of Gram matrices, both triangles, and the triangles to send; of the Fisher information, its sum,
    and a gradient as tensors and as a vector.
    """
    return 3 * FP32 * max(statistic.size for statistic in statistics)
