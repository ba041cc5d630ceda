"""Runs without workers of their own, one worker and one thread each: for many small ones.

What such a run computes and leaves is what the command computes and leaves, to the last bit; it
has no number in the folder of runs, and nothing of it is printed.
"""

import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scaling_fl.composition.federation import build
from scaling_fl.config import Config, read_config
from scaling_fl.core.exchange import SingleExchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.rounds import Hooks
from scaling_fl.runtime.record.journal import JOURNAL, JobRecord, Journal, JournalTail, fold


def run_all(
    configs: Sequence[Config],
    folder: Path,
    *,
    num_processes: int,
    done: Callable[[int, int], None],
) -> None:
    """Run many jobs as ``run_here`` does, so many beside each other.

    ``done`` hears how many have ended, of how many that had not been complete.

    Raises:
        UserError: one of them cannot begin or go on.
    """
    work = partial(_work, str(folder))
    left = [config.model_dump(mode="json") for config in configs if not is_complete(config, folder)]
    if num_processes == 1 or len(left) < 2:
        _count(map(work, left), len(left), done)
        return
    with multiprocessing.get_context("spawn").Pool(min(num_processes, len(left))) as pool:
        _count(pool.imap_unordered(work, left), len(left), done)


def run_here(config: Config, folder: Path) -> JobRecord:
    """Run a job to its end, on the CPU and in this process, and return its record.

    The job lies in ``folder``, under the name that its settings give it: a job that is complete is
    read and not run again, and one that was interrupted goes on. Of its checkpoints the last
    ``keep_last`` stay.

    Raises:
        UserError: the run cannot begin or go on.
    """
    if not is_complete(config, folder):
        place = folder / name_of(config)
        with Journal(place / JOURNAL) as journal:
            journal.append("start", job_name=place.name)
        torch.set_num_threads(config.num_threads or 1)
        _run(config, place)
    return record_of(config, folder)


def record_of(config: Config, folder: Path) -> JobRecord:
    """Read what a job has come to so far."""
    return fold(JournalTail(folder / name_of(config) / JOURNAL).read_new())


def is_complete(config: Config, folder: Path) -> bool:
    record = record_of(config, folder)
    return record.last_round >= config.num_rounds or record.stopped_by is not None


def drop_checkpoints(config: Config, folder: Path) -> None:
    """Delete the states of a job, and leave its record."""
    for place in (folder / name_of(config)).glob("round-*"):
        shutil.rmtree(place)


def name_of(config: Config) -> str:
    """Name a job by its settings, so that with other settings it is another job."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _work(folder: str, settings: dict[str, Any]) -> None:
    run_here(read_config(settings), Path(folder))


def _count(results: Iterable[None], total: int, done: Callable[[int, int], None]) -> None:
    for number, _ in enumerate(results, start=1):
        done(number, total)


def _run(config: Config, place: Path) -> None:
    federation = build(
        config,
        SingleExchange(len(config.site_ids)),
        torch.device("cpu"),
        {"checkpoints": str(place), "journal": str(place / JOURNAL)},
        note=_say_nothing,
        stage=_say_nothing,
    )

    def record(state: GlobalState, report: RoundReport) -> GlobalState:
        assert federation.recorder
        return federation.recorder.record(state, report)

    federation.run(Hooks(record=record, progress=_show_nothing, check=lambda: None))


def _say_nothing(text: str) -> None:
    pass


def _show_nothing(number: int, client: int, step: int, num_steps: int, loss: float) -> None:
    pass
