"""The environment and ``.env``: which of them counts, and what an empty variable means."""

import os
from pathlib import Path

import pytest

from scaling_fl.runtime.environment import load_environment


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(os, "environ", os.environ.copy())


def load(here: str, there: str = "") -> None:
    Path(".env").write_text(here)
    Path("../.env").write_text(there)
    load_environment(Path(".."))


def test_the_environment_comes_first_then_the_callers_file_then_the_projects() -> None:
    os.environ["A"] = "environment"
    load("A=here\nB=here\n", "B=there\nC='there # too'  # a comment\n")
    assert [os.environ[name] for name in "ABC"] == ["environment", "here", "there # too"]


def test_an_empty_variable_is_as_none() -> None:
    os.environ |= {"A": "", "HF_HOME": "", "AWS_ENDPOINT_URL": ""}
    load("A=\nB=\nC=\nD\nHF_TOKEN=\n", "A=there\nB=there\n")
    assert [os.environ.get(name) for name in "ABCD"] == ["there", "there", None, None]
    assert not {"HF_HOME", "HF_TOKEN", "AWS_ENDPOINT_URL"} & set(os.environ)
