"""What a resumed job keeps of its rounds before: the number of threads that they were made with."""

from pathlib import Path
from typing import Any

import pytest
import torch

from scaling_fl.composition.agreement import broadcast_state, forget_unused
from scaling_fl.config import read_config
from scaling_fl.core.errors import UserError
from scaling_fl.core.exchange import SingleExchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState, Memory
from scaling_fl.core.vector import Layout
from scaling_fl.runtime.record.checkpoints import Checkpoints
from scaling_fl.runtime.record.journal import Journal
from scaling_fl.runtime.record.recorder import Fingerprints, Recorder
from scaling_fl.runtime.storage import LocalStorage


def start(folder: Path, *, here: int, wanted: int | None = None) -> tuple[int | None, list[str]]:
    """Begin or resume a job, do a round; returns the threads per worker and what was told."""
    notes: list[str] = []
    recorder = Recorder(
        Journal(folder / "journal.jsonl"),
        Checkpoints(LocalStorage(folder), None, notes.append),
        Fingerprints(layout=Layout(("a",), ((3,),)), kept={}, computation={}, config={}),
        partition={},
        save_every=1,
        num_rounds=9,
        note=notes.append,
    )
    before = torch.get_num_threads()
    try:
        state = broadcast_state(
            GlobalState(torch.zeros(3)),
            recorder,
            SingleExchange(num_sites=1),
            num_threads=wanted or here,
            wanted_threads=wanted,
            note=notes.append,
        )
        assert torch.get_num_threads() == recorder.num_threads
    finally:
        torch.set_num_threads(before)
    following = GlobalState(state.vector, round=state.round + 1)
    recorder.record(following, RoundReport(round=following.round, metrics={}))
    return recorder.num_threads, notes


def test_a_resume_on_another_machine_computes_with_the_threads_of_before(tmp_path: Path) -> None:
    assert start(tmp_path, here=2) == (2, [])
    threads, [note] = start(tmp_path, here=16)
    assert threads == 2
    assert note == (
        "2 threads for each worker, as in the rounds before, though this machine has cores for 16: "
        "results depend on the number"
    )
    assert start(tmp_path, here=2, wanted=2) == (2, [])


def test_a_job_forgets_what_belongs_to_settings_that_it_no_longer_has() -> None:
    names = {"upload.residual", "scaffold.control"}
    clients = {0: {name: torch.ones(3) for name in names}, 2: {"scaffold.control": torch.ones(3)}}
    state = GlobalState(torch.zeros(3), memory=Memory({"scaffold.control": torch.ones(3)}, clients))

    def kept(**changes: Any) -> dict[str, set[str]]:
        config = read_config({"task_name": "20newsgroups", "num_clients": 4, **changes})
        memory = forget_unused(state, config).memory
        by_client = {str(client): set(tensors) for client, tensors in memory.clients.items()}
        return by_client | {"server": set(memory.server)}

    feedback = {"upload": {"codec": "nf4", "error_feedback": True}}
    assert kept() == {"server": set()}
    assert kept(**feedback) == {"0": {"upload.residual"}, "server": set()}
    control = {"scaffold.control"}
    assert kept(scaffold=True) == {"0": control, "2": control, "server": control}
    assert kept(scaffold=True, **feedback) == {"0": names, "2": control, "server": control}


def test_another_number_of_threads_is_refused(tmp_path: Path) -> None:
    start(tmp_path, here=1)
    with pytest.raises(UserError, match=r"num_threads must stay 1, .*, got 3; leave it out, or "):
        start(tmp_path, here=2, wanted=3)
    assert start(tmp_path, here=1) == (1, [])
