"""The commands that try laws: what they print, and how they end."""

import json
import sys
from pathlib import Path

import pytest

from scaling_fl.commands.conformance import check_codec, check_merge
from scaling_fl.conformance.merge_laws import MERGE_LAWS
from scaling_fl.methods.wire.codecs import CODECS
from scaling_fl.reporting.laws import WIDTH, render

OWN = """
from scaling_fl.methods.merging.merge import Merge

def doubled() -> Merge:
    return lambda updates, round: round.total((2 * u.vector, u.share) for u in updates.once())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_merge", raising=False)
    (tmp_path / "own_merge.py").write_text(OWN)
    return tmp_path


def test_a_merge_of_ones_own_is_refused_until_what_it_breaks_is_declared(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "own_merge:doubled"
    assert check_merge(name, breaks=["gauge"], num_cases=3, as_json=False) == 1
    out, err = capsys.readouterr()
    assert "\none client     BROKEN              one client alone is merged to its update\n" in out
    assert "\ngauge          broken as declared  " in out
    assert "    client 0, share 1: head[0,0] = -1.7\n" in out
    assert "  then head[0,0] is -3.4, and must be -1.7\n" in out
    assert max(map(len, out.splitlines())) <= WIDTH
    assert f"which is not so of {name} (one client); correct the merge" in err
    assert check_merge(name, breaks=["gauge", "one client"], num_cases=3, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)[name]
    assert [one["law"] for one in found] == [law.name for law in MERGE_LAWS]
    assert list(folder.glob(".hypothesis")) == []


def test_a_law_that_is_declared_and_kept_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breaks = ["gauge", "one client", "weights"]
    assert check_merge("own_merge:doubled", breaks=breaks, num_cases=3, as_json=False) == 1
    out = capsys.readouterr().out
    assert "weights is NOT BROKEN: as --breaks says\n  no case was found that breaks it" in out


def test_all_codecs_are_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_codec(None, num_cases=5, as_json=False) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "kept", "broken", "as", "declared"]
    assert [row.split()[0] for row in rows] == list(CODECS)
    assert rows[-1].split()[1:] == ["9", "again"]


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("tis", {}, "the merge must be one of mean, "),
        ("own_merge:none", {}, "the merge must name what a module has"),
        ("ties", {"breaks": ["gauge"]}, "--breaks must be for a merge of your own, got ties"),
        ("own_merge:doubled", {"breaks": ["gage"]}, "--breaks must name a law, got 'gage'"),
        ("ties", {"num_cases": 0}, "--cases must be at least 1, got 0"),
    ],
)
def test_misuse_is_told(
    name: str, changes: dict, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"breaks": [], "num_cases": 3, "as_json": False} | changes
    assert check_merge(name, **given) == 2
    assert f"Error: {said}" in capsys.readouterr().err


def test_a_promise_fits_its_column() -> None:
    rows = [{"law": law.name, "outcome": "kept", "promise": law.promise} for law in MERGE_LAWS]
    assert len(render(rows).splitlines()) == len(MERGE_LAWS) + 1
