"""Folders that cannot be written: one sentence that names the folder, and nothing half-made."""

from pathlib import Path

import pytest

from tests.e2e.commands import Shell, arguments, federation

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("setting", "place"), [("checkpoints_dir", "a_file"), ("tracking.runs_dir", "/proc/nowhere")]
)
def test_a_place_that_cannot_hold_a_folder_is_one_sentence(
    shell: Shell, corpus: Path, setting: str, place: str
) -> None:
    (shell.folder / "a_file").write_text("precious")
    settings = federation(corpus, site_ids=[0], **{setting: place})
    error = shell.train(*arguments(settings)).end(expect=1).error
    assert place in error
    assert (shell.folder / "a_file").read_text() == "precious"
