"""The library does what the command does: the same checks, record, digest and model."""

import io
import json
import subprocess
import sys
import threading
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import settings

import scaling_fl
from scaling_fl import RunResult, UserError, read_runs, run
from scaling_fl.config import ConfigurationError
from scaling_fl.core.errors import Interrupted
from scaling_fl.jobs.session import Session
from scaling_fl.runtime.machines.launch import WorkerGroup
from tests.own_things import EXAMPLES, write_messages
from tests.preloaded import lasting_process

QUICK = {"num_rounds": 2, "num_clients": 2}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a notebook; workers are forked from the process that all tests share."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("scaling_fl.commands.train.choose_starter", lambda *_: lasting_process())
    return tmp_path


def of(corpus: Path, **changes: Any) -> dict[str, Any]:
    return settings(corpus, **{**QUICK, **changes})


def test_three_lines_of_a_notebook(corpus: Path, here: Path) -> None:
    """And in a thread that is not the main one, as under a web server."""
    printed, found = io.StringIO(), list[RunResult]()
    given = of(corpus, adapter={"kind": "lora", "rank": 2})

    def work() -> None:
        with redirect_stdout(printed):
            found.append(run(given, {"adapter.rank": 4}, job_name="notebook", seed=3))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (result,) = found
    assert (result.status, result.where) == ("COMPLETED", str(here / "runs" / "1"))
    assert result.config["adapter"]["rank"] == 4
    assert list(result.curves.index) == [1, 2]
    assert result.curves["validation.accuracy"].iloc[-1] == result.metrics["validation.accuracy"]
    assert list(result.clients["client"]) == [0, 1, 0, 1]
    assert [Path(place).name for place in result.checkpoints] == ["round-000001", "round-000002"]
    assert "round 2/2" in printed.getvalue()
    assert "Job notebook completed, 2 of 2 rounds" in printed.getvalue()
    assert "Job notebook completed" in repr(result)
    page = (here / "runs" / "1" / "report.html").read_text()
    assert "COMPLETED, 2 of 2 rounds" in page
    assert "of the run could not be written" not in printed.getvalue()

    model = result.load_model()
    assert model.config.id2label == {0: "EAP", 1: "HPL", 2: "MWS"}
    assert not any("lora" in name for name, _ in model.named_parameters())
    with torch.inference_mode():
        ids = torch.tensor([[2, 5, 3]])
        assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape == (1, 3)

    more = run(given, {"adapter.rank": 4}, job_name="notebook", seed=3, num_rounds=3)
    assert more.where == result.where, "the job goes on in its run"
    again = read_runs()
    assert [each.metrics for each in again] == [more.metrics]
    assert list(again.table["job_name"]) == ["notebook"]
    assert list(again.table.index) == ["runs/1"]
    assert read_runs("runs/1")[0].metrics == read_runs("checkpoints/notebook")[0].metrics


def test_all_problems_come_as_one_error_and_nothing_is_recorded(here: Path) -> None:
    with pytest.raises(ConfigurationError) as error:
        run("demo", num_rounds=0, learning_rat=1.0, adapter={"kind": "lorra"})
    for path in ("num_rounds must", "learning_rat must be a known", "adapter.kind must be one of"):
        assert path in str(error.value)
    with pytest.raises(UserError, match="task_name must be a function of a module"):
        run(task_name=lambda options: None)
    with pytest.raises(UserError, match="must be a named configuration or a file, got 'demoo'"):
        run("demoo")
    with pytest.raises(UserError, match="place must be a folder that exists"):
        read_runs("nowhere")
    assert list(here.iterdir()) == []
    (here / "runs").mkdir()
    assert read_runs() == []
    assert read_runs().table.empty


def test_ones_own_functions_may_be_given_as_they_are(corpus: Path, here: Path) -> None:
    (here / "own_things.py").write_text(EXAMPLES)
    write_messages(here / "messages.tsv", 40)
    monkey = pytest.MonkeyPatch()
    monkey.syspath_prepend(str(here))
    monkey.delitem(sys.modules, "own_things", raising=False)
    try:
        import own_things  # type: ignore[import-not-found]

        paths = {"train_path": here / "messages.tsv", "test_path": here / "messages.tsv"}
        result = run(
            of(corpus, **paths, num_rounds=1),
            task_name="own_things:messages",
            merge={"method": own_things.mean_of_squares},
            partition={"kind": own_things.one_large},
            metrics=[own_things.balanced_accuracy],
        )
    finally:
        monkey.undo()
    assert result.config["merge"]["method"] == "own_things:mean_of_squares"
    recorded = json.loads((Path(result.where) / "run.json").read_text())["experiment"]["sources"]
    assert any("own_things" in stored for _, stored in recorded)
    assert 0 <= result.metrics["validation.balanced_accuracy"] <= 1
    assert result.run.record.job_name
    assert result.run.record.job_name.startswith("own_things.messages-")


def test_an_interrupted_kernel_stops_in_order(
    corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal asks the workers to end; what the caller sees is a KeyboardInterrupt."""
    asked: list[int] = []

    def stop(session: Session) -> None:
        if session._keeper and session._keeper.record.last_round == 1 and not asked:
            asked.append(2)
            groups[0].request_stop(2)

    groups: list[WorkerGroup] = []
    original, tick = WorkerGroup.run, Session._tick
    monkeypatch.setattr(
        WorkerGroup, "run", lambda self, *a, **k: (groups.append(self), original(self, *a, **k))[1]
    )
    monkeypatch.setattr(Session, "_tick", lambda self: (tick(self), stop(self))[0])
    with pytest.raises(Interrupted) as error:
        run(of(corpus, num_rounds=60, num_local_epochs=4), job_name="long")
    assert isinstance(error.value, KeyboardInterrupt)
    (left,) = read_runs()
    assert left.status == "INTERRUPTED"
    assert left.checkpoints


def test_the_import_is_cheap_and_offers_what_is_public() -> None:
    code = (
        "import sys, scaling_fl; heavy = {'torch', 'sacred', 'pydantic'} & {*sys.modules}; "
        "assert not heavy, heavy; assert 'run' in dir(scaling_fl); from scaling_fl import run; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    for name in scaling_fl.__all__:
        assert getattr(scaling_fl, name)
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = scaling_fl.runn  # type: ignore[attr-defined]
