"""What worker 0 records: no round is lost, an outage stops no run, and a resume knows its past."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scaling_fl.core.records import ClientReport, RoundReport
from scaling_fl.core.state import GlobalState, Memory
from scaling_fl.core.vector import Layout
from scaling_fl.runtime.record import recorder as module
from scaling_fl.runtime.record.checkpoints import CheckpointError, CheckpointMismatch, Checkpoints
from scaling_fl.runtime.record.journal import Journal, JournalTail, fold
from scaling_fl.runtime.record.recorder import Fingerprints, Recorder
from scaling_fl.runtime.storage import LocalStorage, StorageError, open_storage

SIZE = 12


class Store(LocalStorage):
    """A local storage that can be out of reach for a while."""

    is_away = False

    def publish(self, *arguments: Any) -> None:
        if self.is_away:
            raise StorageError("could not write: the storage cannot be reached; check the network.")
        super().publish(*arguments)


class Job:
    """A recorder in a folder, its state, and the rounds that are recorded by hand."""

    def __init__(
        self,
        folder: Path,
        *,
        save_every: int = 1,
        num_rounds: int = 9,
        moment: str = "momentum",
        **changes: Any,
    ) -> None:
        self.notes: list[str] = []
        self.store = Store(folder / "checkpoints")
        self.path = folder / "journal.jsonl"
        self.state = GlobalState(torch.zeros(SIZE), {moment: torch.zeros(SIZE)})
        options: dict[str, Any] = {
            "layout": Layout(("a", "b"), ((4,), (2, 4))),
            "kept": {"model": "tiny"},
            "computation": {"learning_rate": 0.1, "seed": 0},
            "config": {"model": "tiny"},
        }
        self.recorder = Recorder(
            Journal(self.path),
            Checkpoints(self.store, None, self.notes.append),
            Fingerprints(**(options | changes)),
            partition={"label_names": ["a"]},
            save_every=save_every,
            num_rounds=num_rounds,
            note=self.notes.append,
        )
        self.recorder.num_threads = 2
        self.state, self.threads = self.recorder.restore(self.state)
        self.recorder.begin()

    def do_round(self, stopped_by: str = "") -> str:
        number = self.state.round + 1
        self.state = replace(
            self.state,
            vector=self.state.vector + number,
            optimiser={name: value - 1.0 for name, value in self.state.optimiser.items()},
            round=number,
            total_bytes=self.state.total_bytes + 100,
        )
        reports = [make_report(self.state.round, 3), make_report(self.state.round, 1, "no")]
        report = RoundReport(
            round=self.state.round,
            metrics={"train.loss": 1 / self.state.round},
            clients=reports,
            stopped_by=stopped_by,
        )
        self.state = self.recorder.record(self.state, report)
        return self.state.digest

    def do(self, rounds: int) -> "Job":
        for _ in range(rounds):
            self.do_round()
        return self

    @property
    def saved(self) -> list[int]:
        return Checkpoints(open_storage(self.store.url), None, print).rounds()

    @property
    def events(self) -> list[dict[str, Any]]:
        return JournalTail(self.path).read_new()


def digest_with(folder: Path, **memory: Any) -> str:
    """Record a round of the clients 3 and 1, after which so much is remembered."""
    job = Job(folder, remembered=frozenset({"moved", "own"}))
    job.state = replace(job.state, memory=Memory(**memory))
    return job.do_round()


def test_a_digest_covers_what_of_the_memory_it_must(tmp_path: Path) -> None:
    ones, twos = torch.ones(2), torch.full((2,), 2.0)
    plain = digest_with(tmp_path / "plain", server={})
    other = {"server": {"mask": ones}, "clients": {3: {"residual": twos}}}
    assert digest_with(tmp_path / "a", **other) == plain
    assert digest_with(tmp_path / "b", clients={2: {"own": ones}}) == plain  # not in this round
    different = [
        digest_with(tmp_path / "c", server={"moved": ones}),
        digest_with(tmp_path / "d", server={"moved": twos}),
        digest_with(tmp_path / "e", clients={1: {"own": ones}}),
        digest_with(tmp_path / "f", clients={3: {"own": ones}}),
    ]
    assert len({plain, *different}) == 5


def make_report(number: int, client: int, failure: str | None = None) -> ClientReport:
    return ClientReport(
        round=number,
        client=client,
        num_examples=10,
        metrics={"loss": 0.5, "accuracy": 0.5},
        update_norm=1.0,
        download_bytes=50,
        upload_bytes=50,
        seconds=0.1,
        failure=failure,
    )


def test_a_round_is_journaled_whole_and_before_it_is_saved(tmp_path: Path) -> None:
    job = Job(tmp_path)
    digest = job.do_round()
    partition, resume, line, checkpoint = job.events
    assert (partition["event"], partition["label_names"]) == ("partition", ["a"])
    assert (resume["event"], resume["round"]) == ("resume", 0)
    assert (line["event"], line["round"], line["digest"]) == ("round", 1, digest)
    assert [row["client"] for row in line["clients"]] == [3, 1]
    assert all("failure" not in row for row in line["clients"])
    assert line["failures"] == [{"client": 1, "reason": "no"}]
    assert (checkpoint["event"], checkpoint["digest"]) == ("checkpoint", digest)


def test_a_resumed_job_has_its_state_and_the_same_digests(tmp_path: Path) -> None:
    whole = Job(tmp_path / "whole").do(5)
    Job(tmp_path / "parts").do(3)
    resumed = Job(tmp_path / "parts")
    assert (resumed.state.round, resumed.state.total_bytes, resumed.threads) == (3, 300, 2)
    assert torch.equal(resumed.state.vector, torch.full((SIZE,), 6.0))
    assert torch.equal(resumed.state.optimiser["momentum"], torch.full((SIZE,), -3.0))
    resumed.do(2)
    assert resumed.state.digest == whole.state.digest
    record = fold(resumed.events)
    assert record.metrics["train.loss"]["steps"] == [1, 2, 3, 4, 5]


def test_another_server_optimiser_starts_anew_and_is_told(tmp_path: Path) -> None:
    Job(tmp_path).do(2)
    resumed = Job(tmp_path, moment="mean")
    assert resumed.notes == ["the server's optimiser is another one from here on, and starts anew"]
    assert resumed.state.round == 2
    assert torch.equal(resumed.state.optimiser["mean"], torch.zeros(SIZE))


def test_a_fresh_job_has_no_earlier_threads(tmp_path: Path) -> None:
    assert Job(tmp_path).threads is None


def test_digests_cover_state_cohort_settings_and_the_rounds_before(tmp_path: Path) -> None:
    def digest_after(name: str, rounds: int = 2, shift: float = 0.0, **changes: Any) -> str:
        job = Job(tmp_path / name, **changes)
        job.state = replace(job.state, vector=job.state.vector + shift)
        return job.do(rounds).state.digest

    digests = [
        digest_after("base"),
        digest_after("shifted", shift=1e-7),
        digest_after("rounds", rounds=3),
        digest_after("settings", computation={"learning_rate": 0.2, "seed": 0}),
    ]
    assert len(set(digests)) == 4
    assert digest_after("again") == digests[0]


def test_rounds_are_saved_when_due_and_at_the_end(tmp_path: Path) -> None:
    assert Job(tmp_path, save_every=3, num_rounds=7).do(7).saved == [3, 6, 7]


def test_the_round_that_a_rule_ends_a_job_with_is_saved_and_says_so(tmp_path: Path) -> None:
    job = Job(tmp_path, save_every=5).do(2)
    job.do_round("stop_when.bytes=9 (why)")
    assert job.saved == [3]
    assert fold(job.events).stopped_by == "stop_when.bytes=9 (why)"


def test_the_past_is_that_of_the_rounds_that_are_kept(tmp_path: Path) -> None:
    Job(tmp_path, save_every=2).do(3)
    assert Job(tmp_path).recorder.past() == {n: {"train.loss": 1 / n} for n in (1, 2)}


def test_a_round_after_the_last_save_is_journaled_once_after_a_resume(tmp_path: Path) -> None:
    Job(tmp_path, save_every=2).do(3)  # ends here, as by kill -9
    resumed = Job(tmp_path, save_every=2)
    assert resumed.state.round == 2
    resumed.do(1)
    assert fold(resumed.events).metrics["train.loss"]["steps"] == [1, 2, 3]


def test_changed_settings_are_named_at_the_resume(tmp_path: Path) -> None:
    Job(tmp_path).do(1)
    job = Job(tmp_path, computation={"learning_rate": 0.2, "seed": 0, "prox_mu": 0.5})
    assert job.notes == [
        "learning_rate is 0.2 from here on; the rounds before used 0.1",
        "prox_mu is 0.5 from here on; the rounds before used None",
    ]


def test_another_model_is_refused(tmp_path: Path) -> None:
    Job(tmp_path).do(1)
    with pytest.raises(CheckpointMismatch, match="model"):
        Job(tmp_path, kept={"model": "bert"})


def test_an_outage_is_noted_and_made_up_for_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path, save_every=4).do(3)
    job.store.is_away = True
    job.do(1)
    [note] = job.notes
    assert note.startswith("the checkpoint round-000004 was not saved, those before it are intact:")
    assert note.endswith("check the network; the run goes on, and a later round is saved instead.")
    job.store.is_away = False
    much_later = time.monotonic() + 1e6
    monkeypatch.setattr(module.time, "monotonic", lambda: much_later)  # the pause is over
    job.do(5)
    assert job.saved == [5, 8, 9]


def test_attempts_during_an_outage_take_no_more_time_than_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: clock)
    job = Job(tmp_path, num_rounds=1000)
    job.store.is_away = True
    attempts = []

    def slow_publish(*_: Any) -> None:
        nonlocal clock
        attempts.append(clock)
        clock += 30.0
        raise StorageError("away.")

    job.store.publish = slow_publish  # type: ignore[method-assign]
    for _ in range(100):
        clock += 3.0
        job.do_round()
    assert len(attempts) == 10  # every tenth round of 3 s, an attempt of 30 s
    assert attempts[1] - attempts[0] == 60.0


@pytest.mark.parametrize(("num_rounds", "stopped_by"), [(3, ""), (9, "a rule")])
def test_the_last_round_must_be_saved_and_is_tried_once(
    tmp_path: Path, num_rounds: int, stopped_by: str
) -> None:
    job = Job(tmp_path, num_rounds=num_rounds).do(2)
    job.store.is_away = True
    with pytest.raises(CheckpointError, match="round-000003 was not saved"):
        job.do_round(stopped_by)
    job.store.is_away = False
    job.recorder.save_unsaved()
    assert job.saved == [1, 2]
    assert job.notes == []


def test_what_is_not_saved_is_saved_when_a_run_ends_early(tmp_path: Path) -> None:
    job = Job(tmp_path, save_every=5).do(2)
    assert job.saved == []
    job.recorder.save_unsaved()
    job.recorder.save_unsaved()
    assert job.saved == [2]
    assert sum(event["event"] == "checkpoint" for event in job.events) == 1


def test_of_a_round_that_was_not_recorded_nothing_is_saved(tmp_path: Path) -> None:
    """The loop may already have the next state when it is stopped."""
    job = Job(tmp_path, save_every=5).do(2)
    recorded = job.state
    job.state = replace(recorded, vector=recorded.vector + 7, round=3)
    job.recorder.save_unsaved()
    assert job.saved == [2]
    assert torch.equal(Job(tmp_path).state.vector, recorded.vector)


def test_a_run_that_ends_early_in_an_outage_ends_for_its_own_reason(tmp_path: Path) -> None:
    job = Job(tmp_path, save_every=5).do(2)
    job.store.is_away = True
    job.recorder.save_unsaved()
    assert "round-000002 was not saved" in job.notes[0]
