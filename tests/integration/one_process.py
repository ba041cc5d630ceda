"""Run a federation whose workers are threads of this process: all but the processes is real."""

import threading
from hashlib import sha256
from typing import Any

import torch
from harness import Run

from scaling_fl.composition.federation import build
from scaling_fl.composition.remote import Office
from scaling_fl.conformance.workers import EndAll, on_workers
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.rounds import Hooks
from scaling_fl.runtime.record.journal import Journal

DEVICE = torch.device("cpu")


class QuickRun(Run):
    """One start of a federation, without processes; what it leaves is what any start leaves."""

    def start_here(
        self, *, stop_after: int | None = None, office: Office | None = None
    ) -> "QuickRun":
        """Run to the end, or until a client of the round after ``stop_after`` begins to train.

        With an ``office`` the clients are on its nodes.
        """
        with Journal(self.journal) as journal:
            journal.append("start", uid="u", job_name="j", run_id="1", host="h", pid=1)
        torch.set_num_threads(1)
        self._stop_after, self._office = stop_after, office
        self.notes: list[str] = []
        self._stopped = threading.Event()
        on_workers(len(set(self.config.site_ids)), self._work)
        return self

    def _work(self, exchange: Exchange) -> None:
        exchange.sites = list(self.config.site_ids)
        job = {"checkpoints": self.url, "journal": str(self.journal)}
        federation = build(
            self.config,
            exchange,
            DEVICE,
            job if exchange.rank == 0 else None,
            note=self.notes.append,
            stage=_mute,
            office=self._office,
        )

        def record(state: GlobalState, report: RoundReport) -> GlobalState:
            if federation.recorder:
                state = federation.recorder.record(state, report)
                if report.round == self._stop_after:
                    self._stopped.set()
            return state

        federation.run(Hooks(record=record, progress=_show_nothing, check=self._check))

    def _check(self) -> None:
        if self._stopped.is_set():
            raise EndAll


def _mute(text: str) -> None:
    pass


def _show_nothing(number: int, client: int, step: int, num_steps: int, loss: float) -> None:
    pass


def outcome(run: Run, round_number: int = 3) -> dict[str, Any]:
    """All that a run came to, less its times: equal outcomes are equal to the last bit."""
    return {
        "digest": run.digest,
        "state": {
            name: sha256(value.numpy().tobytes()).digest()
            for part in ("state", "optimiser")
            for name, value in run.state(round_number, part).items()
        },
        "metrics": run.results(),
        "clients": [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in run.record.clients
        ],
    }
