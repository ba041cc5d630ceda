"""What pages say that commands print is what they print, where it is the same everywhere."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN_COMMANDS = runpy.run_path(str(ROOT / "docs/run_commands.py"))
CHECKED = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
    for number, block in enumerate(RUN_COMMANDS["blocks"](page))
    if block.how == "check"
]


@pytest.mark.slow
@pytest.mark.parametrize("block", CHECKED)
def test_a_command_prints_what_its_page_says(block, tmp_path: Path) -> None:
    assert RUN_COMMANDS["printed"](block, tmp_path) == block.body
