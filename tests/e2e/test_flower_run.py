"""The command runs an app on Flower, tells the truth about its end, and leaves nothing behind."""

import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import ROOT, Command, Shell, wait_for

pytest.importorskip("flwr")
pytest.importorskip("ray")
pytestmark = [pytest.mark.e2e, pytest.mark.slow]

APP = ROOT / "tests" / "fixtures" / "flower_app"
RUN = [sys.executable, str(ROOT / "scripts" / "flower_run.py"), "--app", str(APP), "with"]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for what the commands keep while they run; short, for the names of sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("flwr-*/*") if path.is_dir()]


def flower(shell: Shell, temporary: Path, *words: str) -> Command:
    return shell.type(*RUN, *words, TMPDIR=str(temporary), OF_THE_SHELL="mine")


def test_a_run_has_the_shells_folder_and_variables_and_leaves_nothing(
    shell: Shell, temporary: Path
) -> None:
    ended = flower(shell, temporary, "demo", "author=a b").end(expect=0)
    words, here, *nodes = ended.out.splitlines()
    assert words == "words ['demo', \"'author=a\", \"b'\"]"
    assert here == f"here {shell.folder} mine"
    places = [f"'partition-id': '{n}', 'num-partitions': '2'" for n in (0, 1)]
    assert all(any(place in node for node in nodes) for place in places)
    assert (shell.processes(), left(temporary)) == ([], [])


def test_an_app_that_fails_is_an_error_though_flower_ends_with_0(
    shell: Shell, temporary: Path
) -> None:
    ended = flower(shell, temporary, "fail").end(expect=1)
    assert ended.err.splitlines()[-1].startswith("Error: the run on Flower failed: ")
    assert ended.err.rstrip().endswith("the app fails.")
    assert (shell.processes(), left(temporary)) == ([], [])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_that_was_started(
    number: signal.Signals, code: int, shell: Shell, temporary: Path
) -> None:
    running = flower(shell, temporary, "wait")
    wait_for(lambda: "words" in running.out, "the app", 60)
    running.process.send_signal(number)
    running.end(expect=code)
    assert (shell.processes(), left(temporary)) == ([], [])


def test_what_a_killed_command_has_left_is_ended_by_the_next(shell: Shell, temporary: Path) -> None:
    running = flower(shell, temporary, "wait")
    wait_for(lambda: "words" in running.out, "the app", 60)
    running.process.kill()
    running.process.wait()
    before = set(shell.processes())
    assert before
    assert len(left(temporary)) == 1
    flower(shell, temporary, "fail").end(expect=1)
    wait_for(lambda: not shell.processes(), "the end of what was left", 10)
    assert left(temporary) == []


def test_a_run_goes_on_with_what_its_nodes_remember(shell: Shell, temporary: Path) -> None:
    tiny = ["task_name=20newsgroups_topics", "model=tiny", "data.max_train_examples=80"]
    tiny += ["data.max_test_examples=40", "num_clients=2", "num_local_steps=2", "job_name=kept"]
    tiny += ["upload.codec=nf4", "upload.error_feedback=True"]

    def train(num_rounds: int) -> str:
        words = [*RUN[:2], "with", *tiny, f"num_rounds={num_rounds}"]
        ended = shell.type(*words, TMPDIR=str(temporary), SCALING_FL_RUNNER="./run-local.sh")
        return ended.end(expect=0).out

    said = train(1)
    assert "\nJob kept completed, 1 of 1 rounds.\n" in said
    assert "\n  ./run-local.sh scripts/flower_run.py with task_name=" in said
    said = train(2)
    assert "\nresuming after round 1 of 2\n" in said
    assert "\nJob kept completed, 2 of 2 rounds.\n" in said
    remembered = (shell.folder / ".flwr" / "scaling_fl").glob("node-*/memory/*")
    assert len(list(remembered)) == 2
    assert (shell.processes(), left(temporary)) == ([], [])
