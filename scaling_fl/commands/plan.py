"""The command ``scripts/plan.py``: what a run of checked settings will cost."""

import os
import secrets
import sys
from collections.abc import Callable
from functools import cache, partial

from scaling_fl.commands.endings import Misused, end, show, stage
from scaling_fl.commands.settings import Checked
from scaling_fl.composition.prediction import predict
from scaling_fl.composition.timing import PlannedTime, measure
from scaling_fl.config import NOISE_SECRET, Config
from scaling_fl.config.model_rules import weights_problem
from scaling_fl.core.json_text import json_text
from scaling_fl.reporting.folding import fold, width_of
from scaling_fl.reporting.plan import render
from scaling_fl.runtime.machines.node import Node, threads_per_worker


def main(checked: Checked, *, as_json: bool, began: float | None, is_secure: bool = False) -> int:
    """Predict and print; returns the exit code.

    ``began`` is when this process did, by ``time.perf_counter``; None predicts no time. With
    ``is_secure`` the server is to learn the sum of the updates alone.
    """
    return end(partial(_run, checked, as_json, began, is_secure))


def _run(checked: Checked, as_json: bool, began: float | None, is_secure: bool) -> None:
    predicted = cache(partial(predict, checked.config, stage, is_secure=is_secure))
    # First, because its start is to be that of a worker.
    timing = None
    if began is not None:
        if problem := weights_problem(checked.config.model):
            raise Misused(f"--time must be left out for a model that cannot train: {problem}")
        config, node = checked.config, checked.node
        timing = measure_time(config, node, began, lambda: predicted().num_rounds)
    plan = predicted().to_json()
    if timing:
        plan["time"] = timing.to_json()
    show(json_text(plan) if as_json else fold(render(plan), width_of(sys.stdout)))


def measure_time(
    config: Config, node: Node, began: float, num_rounds: Callable[[], int]
) -> PlannedTime:
    """Measure a few steps of a run; its start began at ``began``, by ``time.perf_counter``.

    Raises:
        UserError: the run itself would refuse these settings or their data.
    """
    # The noise that is drawn on the way protects nothing, because it is thrown away.
    os.environ.setdefault(NOISE_SECRET, secrets.token_hex(32))
    return measure(
        config,
        node.sites,
        device_id=node.device_ids[0],
        num_threads=threads_per_worker(node, config.num_threads, os.environ),
        began=began,
        num_rounds=num_rounds,
        stage=stage,
    )
