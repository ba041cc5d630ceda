"""Workers in other processes reach the nodes by the desk's socket, as if they had the grid."""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from scaling_fl.core.letters import Letter
from scaling_fl.flower.desk import RunFailed, run_with
from scaling_fl.runtime.machines.office import open_office

ROOT = Path(__file__).parents[2]
ASK = """
import sys
from scaling_fl.core.letters import Letter
from scaling_fl.runtime.machines.office import open_office
office = open_office()
print(office.num_nodes, office.owns_data)
print([answer.facts for answer in office.describe(Letter({"what": "describe"}))])
letters = {number: Letter({"number": number}, {"raw": bytes([number])}) for number in (4, 2)}
for key, answer in office.exchange(letters, lambda: None):
    print(key, answer if isinstance(answer, str) else (answer.facts, answer.parts))
sys.exit(int(sys.argv[1]))
"""


class Echo:
    """Nodes that send back what they get, but for client 2."""

    num_nodes, owns_data, owns_tests, is_secure = 2, False, False, False

    def describe(self, letter: Letter) -> list[Letter | str]:
        return [Letter({**letter.facts, "node": number}) for number in range(self.num_nodes)]

    def exchange(
        self, letters: Mapping[int, Letter], check: Callable[[], None]
    ) -> Iterator[tuple[int, Letter | str]]:
        for key, letter in letters.items():
            check()
            yield key, "its node is away" if key == 2 else letter


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_a_worker_asks_by_the_socket(capfd: pytest.CaptureFixture[str]) -> None:
    run_with(Echo(), [sys.executable, "-c", ASK, "0"])
    assert capfd.readouterr().out.splitlines() == [
        "2 False",
        "[{'what': 'describe', 'node': 0}, {'what': 'describe', 'node': 1}]",
        "4 ({'number': 4}, {'raw': b'\\x04'})",
        "2 its node is away",
    ]
    assert threading.active_count() < 20
    assert open_office() is None, "here, the clients are where the workers are"


def test_a_run_that_fails_fails_the_app(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunFailed, match="the run ended with exit code 3"):
        run_with(Echo(), [sys.executable, "-c", ASK, "3"])
    assert "2 its node is away" in capfd.readouterr().out


def test_a_worker_that_dies_in_a_round_ends_the_waiting(tmp_path: Path) -> None:
    class Silent(Echo):
        def exchange(
            self, letters: Mapping[int, Letter], check: Callable[[], None]
        ) -> Iterator[tuple[int, Letter | str]]:
            (tmp_path / "asked").touch()
            while True:
                check()
            yield 0, ""

    die = ASK.replace(
        "for key, answer in office.exchange(letters, lambda: None):",
        "import os, pathlib\n"
        "def check():\n"
        f"    if pathlib.Path({str(tmp_path / 'asked')!r}).exists(): os._exit(9)\n"
        "for key, answer in office.exchange(letters, check):",
    )
    with pytest.raises(RunFailed, match="exit code 9"):
        run_with(Silent(), [sys.executable, "-c", die, "0"])
    left = [thread for thread in threading.enumerate() if "_serve" in thread.name]
    for thread in left:
        thread.join(10.0)
    assert not any(thread.is_alive() for thread in left)
