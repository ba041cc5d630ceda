"""What a sweep would do: its runs, what they have come to, and what those that are left will cost.

Importing this module takes seconds.
"""

import os
import time
from collections.abc import Sequence

from scaling_fl.commands.endings import show, stage
from scaling_fl.commands.plan import measure_time
from scaling_fl.commands.sweeps.check import Sweep
from scaling_fl.commands.sweeps.runs import FINISHED, run_of
from scaling_fl.composition.prediction import Prediction, predict
from scaling_fl.config import Config
from scaling_fl.core.digest import digest
from scaling_fl.core.errors import UserError
from scaling_fl.reporting.sweep_plan import PlannedRun, render
from scaling_fl.runtime.machines.node import read_node
from scaling_fl.sweeps.entry import Entry
from scaling_fl.sweeps.placement import alone, on_sites
from scaling_fl.sweeps.queue import Queue

_TIMELESS = {"seed", "data_seed", "learning_rate", "weight_decay", "job_name", "checkpoints_dir"}
"""Settings that change no time: runs that differ in these alone are measured once."""


def show_plan(
    sweep: Sweep, queue: Queue, *, with_time: bool, sites: Sequence[int], num_slots: int
) -> None:
    """Print the runs of a sweep and their costs; nothing is put into its queue.

    Raises:
        UserError: a run would refuse its settings or data.
    """
    queued = {entry.key: entry for entry in queue.entries()}
    costs = _Costs(with_time=with_time, sites=sites)
    planned = [
        _planned(entry, queued.get(entry.key, entry), config, costs)
        for entry, config in zip(sweep.entries, sweep.configs, strict=True)
    ]
    show(render(planned, name=sweep.name, num_slots=num_slots))


class _Costs:
    """Predicts what runs cost; a note or a measurement that several share comes once."""

    def __init__(self, *, with_time: bool, sites: Sequence[int]) -> None:
        self._with_time, self._sites = with_time, sites
        self._notes = set[str]()
        self._seconds = dict[str, tuple[float, float]]()

    def predict(self, config: Config) -> Prediction:
        return predict(config, self._note)

    def seconds(self, config: Config, num_rounds: int) -> tuple[float, float] | None:
        """Return the seconds until a run's first round, and those of its mean round."""
        if not self._with_time:
            return None
        site_ids = tuple(on_sites(config.site_ids, self._sites))
        placed = config.model_copy(update={"site_ids": site_ids})
        shape = digest(placed.model_dump(mode="json", exclude=_TIMELESS))
        if shape not in self._seconds:
            node = read_node(site_ids, alone(os.environ))
            found = measure_time(placed, node, time.perf_counter(), lambda: num_rounds)
            self._seconds[shape] = found.start, found.round
        return self._seconds[shape]

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.add(text)
            stage(text)


def _planned(entry: Entry, queued: Entry, config: Config, costs: _Costs) -> PlannedRun:
    run = run_of(config)
    done = run.record.last_round if run else 0
    is_finished = queued.outcome in ("done", "pruned") or (run and run.status in FINISHED)
    try:
        cost = costs.predict(config)
    except UserError as error:
        raise type(error)(f"{entry.label}: {error}") from None
    sent = [sum(pair) for pair in zip(cost.download_bytes, cost.upload_bytes, strict=True)]
    seconds = None if is_finished else costs.seconds(config, cost.num_rounds)
    left = max(0, cost.num_rounds - done)
    return PlannedRun(
        label=entry.label,
        state="finished" if is_finished else _state(queued, done),
        rounds_done=cost.num_rounds if is_finished else done,
        num_rounds=cost.num_rounds,
        bytes_left=0 if is_finished else sum(sent[done:]),
        total_bytes=sum(sent),
        epsilon=cost.epsilon,
        delta=cost.delta,
        seconds=None if seconds is None else seconds[0] + seconds[1] * left,
    )


def _state(queued: Entry, rounds_done: int) -> str:
    if queued.outcome in ("failed", "running"):
        return queued.outcome
    return "to resume" if rounds_done else "new"
