"""Federations that run the same round again and again, put together as the product does."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import cast

import torch
from setting import Settings

from scaling_fl.composition.federation import build
from scaling_fl.config import read_config
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import ClientProgress
from scaling_fl.federation.evaluator import Evaluator
from scaling_fl.federation.rounds import Hooks, run_rounds
from scaling_fl.federation.stopping import Stopping
from scaling_fl.runtime.machines.exchange import connect
from scaling_fl.runtime.machines.meeting import Meeting

CPU = torch.device("cpu")
Round = Callable[[str], tuple[RoundReport, float]]
"""The name of a federation -> the report of its round, and the CPU seconds of all workers."""


class Federated:
    """One worker of a federation, with one thread; rounds are neither evaluated nor recorded."""

    def __init__(self, settings: Settings, exchange: Exchange | None = None) -> None:
        torch.set_num_threads(1)
        self._exchange = exchange or SingleExchange(1)
        with tempfile.TemporaryDirectory() as folder:
            self._federation = build(
                read_config(settings),
                self._exchange,
                CPU,
                {"checkpoints": f"{folder}/checkpoints", "journal": f"{folder}/journal.jsonl"},
                note=_say_nothing,
                stage=_say_nothing,
            )
        self.state = self._federation.state

    def round(
        self,
        check: Callable[[], None] = lambda: None,
        progress: ClientProgress = lambda *_: None,
    ) -> RoundReport:
        """Run the round after ``state``, which stays as it is: every call does the same work.

        ``check`` is called before every step.
        """
        return self.next_round(check, progress)[1]

    def next_round(
        self, check: Callable[[], None], progress: ClientProgress
    ) -> tuple[GlobalState, RoundReport]:
        """Run the round after ``state`` and return the state after it, too."""
        reports: list[RoundReport] = []

        def record(state: GlobalState, report: RoundReport) -> GlobalState:
            reports.append(report)
            return state

        after = run_rounds(
            self.state,
            replace(self._federation.rounds, num_rounds=self.state.round + 1),
            clients=self._federation.clients,
            server=self._federation.server,
            evaluate=cast(Evaluator, lambda *_: {}),
            exchange=self._exchange,
            stopping=Stopping(self._exchange),
            hooks=Hooks(record=record, progress=progress, check=check),
        )
        return after, reports[0]


def _say_nothing(text: str) -> None:
    pass


@contextmanager
def workers(federations: Mapping[str, Settings], num_workers: int) -> Iterator[Round]:
    """Start processes that stay, and yield a function that has them run a round."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for rank in range(num_workers):
            ours, theirs = context.Pipe()
            arguments = (federations, rank, num_workers, f"{folder}/store", theirs)
            processes.append(context.Process(target=serve, args=arguments, daemon=True))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)

        def run_round(name: str) -> tuple[RoundReport, float]:
            for pipe in pipes:
                pipe.send(name)
            answers: list[tuple[RoundReport, float]] = [pipe.recv() for pipe in pipes]
            return answers[0][0], sum(seconds for _, seconds in answers)

        assert [pipe.recv() for pipe in pipes] == ["ready"] * num_workers
        yield run_round
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join()


def serve(
    federations: Mapping[str, Settings],
    rank: int,
    num_workers: int,
    store_path: str,
    pipe: Connection,
) -> None:
    """Run rounds on demand until told None."""
    sites = list(range(num_workers))
    meeting = Meeting(
        node_rank=0, num_nodes=1, local_index=rank, sites=sites, store_path=store_path
    )
    exchange = connect(meeting, CPU, _say_nothing)
    built = {name: Federated(settings, exchange) for name, settings in federations.items()}
    pipe.send("ready")
    while (name := pipe.recv()) is not None:
        began = time.process_time()
        report = built[name].round()
        pipe.send((report, time.process_time() - began))
    exchange.close()
