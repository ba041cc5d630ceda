"""What Flower's command answers decides, not the code with which it ends."""

import json
import stat
import sys
import tomllib
from pathlib import Path

import pytest

from scaling_fl.flower import control
from scaling_fl.flower.control import COMPLETED, Control, FlowerRefused, toml_text
from scaling_fl.flower.following import Following

RUN = {"run-id": "7", "status": COMPLETED, "status-details": "N/A"}


class Flwr:
    """A command in place of flwr that gives set answers, and keeps what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "flwr"
        self.path.write_text(
            f"#!{sys.executable}\n"
            "import json, pathlib, shutil, sys\n"
            f"folder = pathlib.Path({str(folder)!r})\n"
            "with (folder / 'asked').open('a') as asked:\n"
            "    print(json.dumps(sys.argv[1:]), file=asked)\n"
            "for word in sys.argv:\n"
            "    if word.endswith('.toml'): shutil.copy(word, folder / 'settings.toml')\n"
            "print((folder / sys.argv[1]).read_text(), end='')\n"
        )
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    def answers(self, command: str, answer: object, *, before: str = "") -> None:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        (self.folder / command).write_text(before + text)

    @property
    def asked(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "asked").read_text().splitlines()]


@pytest.fixture
def flwr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flwr:
    found = Flwr(tmp_path)
    monkeypatch.setattr(control, "program", lambda name: str(tmp_path / name))
    return found


OWN = Control({}, "own")


def test_settings_travel_as_they_are_whatever_they_hold(flwr: Flwr) -> None:
    flwr.answers("run", {"success": True, "run-id": "7"}, before="Using SuperLink: own\n")
    words = "demo author='a \"b\"' site_ids=[0,1] comment=ü\x7f\\"
    assert OWN.submit(Path("/app"), {"with": words}, {"num-supernodes": 3}) == "7"
    assert tomllib.loads((flwr.folder / "settings.toml").read_text()) == {"with": words}
    assert flwr.asked[0][:5] == ["run", "/app", "own", "--federation-config", "num-supernodes=3"]


def test_a_refusal_is_told_though_the_command_ends_with_0(flwr: Flwr) -> None:
    text = "Using SuperLink: own (127.0.0.1:1)\n\n[code: 15] Invalid run configuration."
    flwr.answers("run", {"success": False, "error-message": text})
    with pytest.raises(FlowerRefused, match=r"^flwr run failed: \[code: 15\] Invalid run config"):
        OWN.submit(Path("/app"), {"nix": 1})


def test_an_answer_that_is_none_is_told(flwr: Flwr) -> None:
    flwr.answers("ls", "Traceback:\nKeyError: 'x'\n")
    with pytest.raises(FlowerRefused, match=r"^flwr ls failed: Traceback: KeyError: 'x'$"):
        OWN.run("7")


def test_a_run_is_followed_until_flower_says_that_it_is_over(flwr: Flwr) -> None:
    flwr.answers("ls", {"success": True, "runs": [RUN]})
    flwr.answers("log", "one\ntwo\n")
    shown: list[str] = []
    found = Following(OWN, "7", shown.append, lambda: True).until_over()
    assert (shown, found.status, found.is_over) == (["one", "two"], COMPLETED, True)


def test_output_that_breaks_off_is_not_shown_twice(
    flwr: Flwr, monkeypatch: pytest.MonkeyPatch
) -> None:
    flwr.answers("ls", {"success": True, "runs": [RUN | {"status": "running"}]})
    flwr.answers("log", "one\n")
    shown: list[str] = []

    def show(line: str) -> None:
        shown.append(line)
        flwr.answers("log", "one\ntwo\n")
        if len(shown) == 2:
            flwr.answers("ls", {"success": True, "runs": [RUN]})

    Following(OWN, "7", show, lambda: True).until_over()
    assert shown == ["one", "two"]


def test_a_superlink_that_has_ended_ends_the_following(flwr: Flwr) -> None:
    flwr.answers("log", "one\n")
    with pytest.raises(FlowerRefused, match="the SuperLink has ended before the run was over"):
        Following(OWN, "7", lambda line: None, lambda: False).until_over()


def test_nodes_and_their_states_are_read(flwr: Flwr) -> None:
    nodes = [{"node-id": 5, "status": "online"}, {"node-id": "6", "status": "offline"}]
    flwr.answers("supernode", {"success": True, "nodes": nodes})
    assert OWN.nodes() == {"5": "online", "6": "offline"}


@pytest.mark.parametrize("value", ["", 'a"b\\c', "tab\t", "€", 3, 2.5, True])
def test_values_are_written_as_toml_reads_them(value: str | int | float | bool) -> None:
    assert tomllib.loads(f"key = {toml_text(value)}") == {"key": value}
