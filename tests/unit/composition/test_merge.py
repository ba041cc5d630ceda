"""Every row of the table of merges is built, and a user's own is found in the current folder."""

import sys
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.composition.merge import make_merge, source_of_own_merge
from scaling_fl.config import Config, read_config
from scaling_fl.config.merges import MERGES
from scaling_fl.core.errors import UserError
from tests.unit.methods.merging.rounds import merged, some_updates
from tests.unit.methods.merging.test_conformance import MERGES as CONFORMING

OWN = """
from scaling_fl.methods.merging.merge import Merge

def first_half() -> Merge:
    def merge(updates, round):
        return round.total((u.vector, u.share / 2) for u in updates.once())
    return merge
"""


def config_of(method: str, **changes: Any) -> Config:
    sparse = {"upload": {"density": 0.5}} if method == "mean_of_senders" else {}
    return read_config({"task_name": "20newsgroups", "merge": {"method": method}, **sparse})


@pytest.mark.parametrize("method", sorted(MERGES))
def test_every_row_is_built_and_in_the_conformance_suite(method: str) -> None:
    assert method in CONFORMING
    config = config_of(method)
    assert merged(lambda: make_merge(config), some_updates(3, 1)).any()
    assert source_of_own_merge(config) == {}


def test_a_users_own_merge_is_found_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_merges.py").write_text(OWN)
    config = config_of("own_merges:first_half")
    updates = some_updates(3, 1)
    half = merged(lambda: make_merge(config), updates)
    assert (2 * half).allclose(merged(lambda: make_merge(config_of("mean")), updates), atol=1e-7)
    assert len(source_of_own_merge(config)["merge.source"]) == 64


@pytest.mark.parametrize("method", ["no_such_module:merge", "math:no_such_function"])
def test_a_merge_that_is_not_there_is_told(method: str) -> None:
    with pytest.raises(UserError, match=f"merge.method must name .* got {method}"):
        make_merge(config_of(method))
