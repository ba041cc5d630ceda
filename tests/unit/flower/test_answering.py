"""A server names the folders of a job on a node, and must not name any others."""

from pathlib import Path

import pytest

from scaling_fl.core.letters import Letter
from scaling_fl.core.places import Place
from scaling_fl.flower.answering import answer_here


@pytest.mark.parametrize("job", ["../other", "/etc", "", "a/b", ".", "x" * 65, "a\nb"])
def test_a_job_that_names_another_folder_is_refused(job: str, tmp_path: Path) -> None:
    node = tmp_path / "node"
    letter = Letter({"job": job, "what": "train", "secure": "keys"})
    assert answer_here(letter, Place(0, node)).facts == {"failure": "refused"}
    assert list(tmp_path.iterdir()) == []
