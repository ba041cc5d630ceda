"""The pages say what the program is: settings, files and commands that they name exist."""

import re
import runpy
from pathlib import Path

import pytest

from scaling_fl.config import Config
from scaling_fl.config.base import sections_in

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LOOKED_UP = {"index", "settings", "reference", "guarantees"}


def rows_of(page: str) -> set[str]:
    """List what the first cells of a page's tables name."""
    first = re.findall(r"^\| (`[^|]+) \|", (ROOT / "docs" / page).read_text(), re.M)
    return {name for cell in first for name in re.findall(r"`([^`]+)`", cell)}


def test_the_page_of_settings_is_that_of_the_configuration():
    written = runpy.run_path(str(ROOT / "docs/settings_page.py"))
    assert written["PAGE"].read_text(encoding="utf-8") == written["page"](), (
        "run python docs/settings_page.py"
    )


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_settings_that_a_page_names_exist(page):
    sections = [name for name, field in Config.model_fields.items() if sections_in(field)]
    text = re.sub(r"```python.*?```|\w+\.(md|png)\b", "", page.read_text(), flags=re.S)
    named = set(re.findall(rf"(?<![\w./-])((?:{'|'.join(sections)})\.[a-z_]+)\b", text))
    assert named - rows_of("reference.md") <= rows_of("settings.md")


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_files_that_a_page_names_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\(((?!http|#)[^)#]+)", text)
    folders = "scripts|tests|configs|docs|benchmarks|deploy|scaling_fl"
    paths = re.findall(rf"(?<![\w/])((?:{folders})/[\w/]+\.\w+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_a_command_and_what_it_prints(page):
    if page.stem in LOOKED_UP:
        return
    found = list(runpy.run_path(str(ROOT / "docs/run_commands.py"))["blocks"](page))
    assert found
    for block in found:
        assert len(block.body.splitlines()) > len(block.commands)


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
