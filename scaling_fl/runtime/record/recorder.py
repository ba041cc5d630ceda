"""Worker 0's memory: every round into the journal, the global state into checkpoints."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scaling_fl.core.digest import digest
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState, Memory, Tensors
from scaling_fl.core.vector import Layout
from scaling_fl.runtime.record.checkpoints import (
    Checkpoint,
    CheckpointError,
    CheckpointMismatch,
    Checkpoints,
    chain_digest,
)
from scaling_fl.runtime.record.journal import Journal, JournalTail, fold
from scaling_fl.runtime.record.manifest import TornCheckpoint


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """What a run is: what its checkpoints agree with, what its digests cover, what is stored."""

    layout: Layout
    kept: dict[str, Any]
    """Of the vector and of the guarantee: a checkpoint with another one is refused."""
    computation: dict[str, Any]
    """All that decides what is computed; the digest of every round covers it."""
    config: dict[str, Any]
    """The whole configuration, as stored beside the state."""
    remembered: frozenset[str] = frozenset()
    """The names of what of the memory the digest of every round covers, too: what models consist
    of beside the vector, and what they go on from."""
    sources: frozenset[str] = frozenset()
    """The keys of the computation that hash what the user wrote: a job that goes on with the same
    names must have the same sources."""


class Recorder:
    """Records rounds in the order that loses none: journal line first, checkpoint after it.

    After a crash in between, the round is computed again, and its line replaces the first one.
    """

    def __init__(
        self,
        journal: Journal,
        checkpoints: Checkpoints,
        fingerprints: Fingerprints,
        *,
        partition: dict[str, Any] | None,
        baseline: dict[str, Any] | None = None,
        save_every: int,
        num_rounds: int,
        note: Callable[[str], None],
    ) -> None:
        self._journal, self._checkpoints, self._fingerprints = journal, checkpoints, fingerprints
        self._partition, self._baseline = partition, baseline
        self._save_every, self._num_rounds, self._note = save_every, num_rounds, note
        self._recorded: GlobalState | None = None
        self._saved_round, self._is_over = 0, False
        self._retry_at: float | None = None
        """When to make up for a save that failed, on the monotonic clock."""
        self._previous_digest = ""
        self._cohort: list[int] = []
        self.num_threads: int | None = None
        """Threads per worker; kept in checkpoints because the bits depend on it."""

    def restore(self, state: GlobalState) -> tuple[GlobalState, int | None]:
        """Return the state of the latest whole checkpoint, or ``state`` where there is none.

        Also returns the number of threads per worker of the rounds before. Nothing is recorded.

        Raises:
            CheckpointMismatch: it is of another model, task or layout, or the user's functions
                have other sources.
            CheckpointError: there are checkpoints, and none of them is whole.
        """
        fingerprints = self._fingerprints
        found = self._checkpoints.load_latest(
            fingerprints.layout, fingerprints.kept, check_restorable
        )
        num_threads = None
        if found is not None:
            state = self._restored(state, found)
            num_threads = found.manifest["progress"]["num_threads"]
            self._name_changes(found.manifest["progress"]["computation"])
        self._recorded, self._saved_round = state, state.round
        return state, num_threads

    def past(self) -> dict[int, dict[str, float]]:
        """Read the metrics, by name, of every round that the job goes on after."""
        found: dict[int, dict[str, float]] = {}
        for name, series in fold(JournalTail(self._journal.path).read_new()).metrics.items():
            for number, value in zip(series["steps"], series["values"], strict=True):
                if number <= self._saved_round:
                    found.setdefault(number, {})[name] = value
        return found

    def begin(self, stopped_by: str = "", budgets: Sequence[dict[str, Any]] = ()) -> None:
        """Journal who owns which examples, after which round the job goes on, and what to beat.

        ``stopped_by`` says which rule has ended the job already; empty: it goes on. ``budgets`` are
        the settings that will, each with its ``metric``, the ``most`` and what is ``spent``.
        """
        assert self._recorded
        if self._partition is not None:
            self._journal.append("partition", **self._partition)
        told: dict[str, Any] = {"baseline": self._baseline} if self._baseline else {}
        told |= {"stopped_by": stopped_by} if stopped_by else {}
        told |= {"budgets": list(budgets)} if budgets else {}
        self._journal.append("resume", round=self._saved_round, num_rounds=self._num_rounds, **told)

    def _restored(self, state: GlobalState, found: Checkpoint) -> GlobalState:
        device = state.vector.device
        kinds: dict[str, dict[str, Tensor]] = {"optimiser": {}, "memory": {}}
        for name, value in found.optimiser.items():
            kind, _, key = name.partition(".")
            kinds[kind][key] = value.to(device)
        optimiser: Tensors = kinds["optimiser"]
        if _shapes(state.optimiser) != _shapes(optimiser):
            self._note("the server's optimiser is another one from here on, and starts anew")
            optimiser = state.optimiser
        return GlobalState(
            found.vector.to(device),
            optimiser,
            Memory.from_tensors(kinds["memory"]),
            round=found.round,
            total_bytes=found.manifest["progress"]["total_bytes"],
            digest=found.digest,
        )

    def _name_changes(self, before: dict[str, Any]) -> None:
        now = self._fingerprints.computation
        for key in sorted(before.keys() | now.keys()):
            if key in self._fingerprints.sources and before.get(key, now[key]) != now[key]:
                raise CheckpointMismatch(
                    f"the {key} must stay as it was in the rounds before, got another one (hash "
                    f"{now[key][:12]}, was {before[key][:12]}); restore its file, or start anew "
                    "with another job_name or checkpoints_dir."
                )
            if before.get(key) != now.get(key):
                self._note(
                    f"{key} is {now.get(key)} from here on; the rounds before used "
                    f"{before.get(key)}"
                )

    def record(self, state: GlobalState, report: RoundReport) -> GlobalState:
        """Journal a finished round, save it when it is due, and return its state with its digest.

        Raises:
            CheckpointError: the last round could not be saved; an earlier failure is only noted,
                because the next save may succeed.
        """
        self._cohort = [c.client for c in report.clients]
        self._previous_digest = state.digest
        round_digest = chain_digest(
            state.digest,
            round=state.round,
            cohort=self._cohort,
            computation_digest=digest(self._fingerprints.computation),
            vector=_on_cpu(state.vector),
            remembered=self._remembered(state.memory),
        )
        state = replace(state, digest=round_digest)
        rows = [client.to_json() for client in report.clients]
        self._journal.append(
            "round",
            round=state.round,
            metrics=report.metrics,
            clients=[{k: v for k, v in row.items() if k != "failure"} for row in rows],
            failures=[{"client": r.client, "reason": r.failure} for r in report.failures],
            digest=state.digest,
            **({"stopped_by": report.stopped_by} if report.stopped_by else {}),
        )
        self._recorded = state
        last = self._is_over = state.round == self._num_rounds or bool(report.stopped_by)
        if last or self._is_due(state.round):
            began = time.monotonic()
            try:
                self._save(state)
            except CheckpointError as error:
                if last:
                    raise
                self._postpone(error, time.monotonic() - began)
        return state

    def _remembered(self, memory: Memory) -> Tensors:
        """Return what the digest of a round must cover; of other clients, those before did."""
        found = memory.only(self._fingerprints.remembered, self._cohort).to_tensors()
        return {name: _on_cpu(tensor) for name, tensor in found.items()}

    def _is_due(self, round_number: int) -> bool:
        if self._retry_at is not None:
            return time.monotonic() >= self._retry_at
        return round_number % self._save_every == 0

    def _postpone(self, error: CheckpointError, spent_seconds: float) -> None:
        """Train for as long as the failed attempt took, so that an outage stops no run."""
        self._retry_at = time.monotonic() + spent_seconds
        self._note(
            f"{str(error).rstrip('.')}; the run goes on, and a later round is saved instead."
        )

    def save_unsaved(self) -> None:
        """Save the last recorded round of a run that ends early, if it is not saved.

        Failing to is only noted: the run has its own reason to end. The last round of a run is
        left alone, because recording it has saved it or failed to.
        """
        state = self._recorded
        if state and self._saved_round < state.round and not self._is_over:
            try:
                self._save(state)
            except CheckpointError as error:
                self._note(str(error))

    def _save(self, state: GlobalState) -> None:
        path = self._checkpoints.save(
            round=state.round,
            vector=_on_cpu(state.vector),
            layout=self._fingerprints.layout,
            optimiser=_server_tensors(state),
            digest=state.digest,
            previous_digest=self._previous_digest,
            cohort=self._cohort,
            config=self._fingerprints.config,
            identity=self._fingerprints.kept,
            progress={
                "total_bytes": state.total_bytes,
                "num_threads": self.num_threads,
                "computation": self._fingerprints.computation,
            },
            journal=self._journal.path,
        )
        self._saved_round, self._retry_at = state.round, None
        self._journal.append("checkpoint", round=state.round, path=path, digest=state.digest)


def check_restorable(found: Checkpoint) -> None:
    """Raise TornCheckpoint where something is missing of what a recorder saves."""
    for name in ("total_bytes", "num_threads", "computation"):
        if name not in found.manifest["progress"]:
            raise TornCheckpoint(f"its manifest lacks progress.{name}")
    for name in found.optimiser:
        if name.partition(".")[0] not in ("optimiser", "memory"):
            raise TornCheckpoint(f"its tensor {name} belongs to nothing")


def _server_tensors(state: GlobalState) -> dict[str, Tensor]:
    """Name all that the server knows beside the vector, as ``optimiser.safetensors`` has it."""
    kinds = {"optimiser": state.optimiser, "memory": state.memory.to_tensors()}
    return {
        f"{kind}.{name}": _on_cpu(value)
        for kind, tensors in kinds.items()
        for name, value in tensors.items()
    }


def _shapes(tensors: Tensors) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}


def _on_cpu(value: Tensor) -> Tensor:
    return value.detach().cpu()
