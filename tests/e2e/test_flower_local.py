"""A real deployment of Flower on this machine: TLS, keys, nodes that die and come back."""

import json
import os
import re
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import ROOT, Shell, wait_for

pytest.importorskip("flwr")
pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(600)]

APP = ROOT / "tests" / "fixtures" / "flower_app"
LOCAL = [sys.executable, str(ROOT / "scripts" / "flower_local.py")]


@pytest.fixture
def local(shell: Shell) -> Iterator[Shell]:
    yield shell
    shell.type(*LOCAL, "stop", "fed").process.wait(60)


def typed(shell: Shell, *words: str, expect: int = 0) -> str:
    ended = shell.type(*LOCAL, *words, OF_THE_SHELL="mine").end(expect=expect)
    return ended.out + ended.err


def run(shell: Shell, *words: str, expect: int = 0) -> str:
    return typed(shell, "run", "fed", "--app", str(APP), "with", *words, expect=expect)


def nodes_in(output: str) -> list[str]:
    return sorted(re.findall(r"'train-path': '.*/(node\d)/train\.jsonl'", output))


def test_nodes_with_data_of_their_own_run_die_come_back_and_end(local: Shell) -> None:
    (local.folder / "t.csv").write_text("text,label\none,1\ntwo,2\nthree,1\n")
    said = typed(local, "start", "fed", "--nodes", "2", "--data", "t.csv")
    assert "node0 is online" in said
    assert "and 2 rows of its own" in said
    fed = local.folder / "fed"
    assert (fed / "node1/train.jsonl").read_text() == '{"text": "two", "label": "2"}\n'
    assert {stat.S_IMODE(path.stat().st_mode) for path in fed.glob("*/")} == {0o700}

    assert "is running already; nothing was started" in typed(local, "start", "fed")
    said = run(local, "demo")
    assert nodes_in(said) == ["node0", "node1"]
    assert f"here {local.folder} mine" in said
    assert "Error: the run on Flower failed: " in run(local, "fail", expect=1)

    interrupted = local.type(*LOCAL, "run", "fed", "--app", str(APP), "with", "wait")
    wait_for(lambda: "words" in interrupted.out, "the app", 60)
    interrupted.process.send_signal(signal.SIGINT)
    interrupted.end(expect=130)
    assert ": finished:stopped\n" in typed(local, "status", "fed")

    program = json.loads((fed / "deployment.json").read_text())["programs"]["node0"]
    os.kill(program["pid"], signal.SIGKILL)
    assert "node0: has ended\nnode1: online\n" in typed(local, "status", "fed")
    assert "Started again in fed: node0." in typed(local, "start", "fed")
    assert nodes_in(run(local, "demo")) == ["node0", "node1"]

    assert re.search(r"^Ended \d+ processes\.$", typed(local, "stop", "fed"), re.M)
    assert local.processes() == []
    assert "The SuperLink is not running; type:" in typed(local, "status", "fed")
    assert "is not running; type:" in run(local, "demo", expect=1)

    known = json.loads((fed / "deployment.json").read_text())["registered"]
    typed(local, "start", "fed")
    assert json.loads((fed / "deployment.json").read_text())["registered"] == known
    assert nodes_in(run(local, "demo")) == ["node0", "node1"]
    typed(local, "stop", "fed")
    assert local.processes() == []


def test_a_stranger_is_not_let_in(local: Shell, tmp_path: Path) -> None:
    certificates = pytest.importorskip("scaling_fl.flower.certificates")
    typed(local, "start", "fed", "--nodes", "1")
    fed = local.folder / "fed"
    port = json.loads((fed / "deployment.json").read_text())["programs"]["superlink"]["port"]
    certificates.write_node_key(tmp_path)
    node = [str(Path(sys.executable).parent / "flower-supernode"), "--port", "0"]
    node += ["--superlink", f"127.0.0.1:{port}", "--max-retries", "1"]
    node += ["--root-certificates", str(fed / "superlink/ca.pem")]
    node += ["--auth-supernode-private-key", str(tmp_path / certificates.PRIVATE)]
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    ended = local.type(*node, FLWR_HOME=str(tmp_path), **quiet)
    assert ended.process.wait(120) != 0
    assert "node0: online" in typed(local, "status", "fed")
    typed(local, "stop", "fed")
    assert local.processes() == []
