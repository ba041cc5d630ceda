"""The page of merges lists the laws, and the merges that break each."""

import re
from pathlib import Path

from scaling_fl.config.merges import MERGES
from scaling_fl.conformance.merge_laws import MERGE_LAWS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "merging.md"


def test_the_page_says_which_merge_breaks_which_law() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| (.+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    found = [
        (law, promise, re.findall("`([^`]+)`", names))
        for law, promise, names in rows
        if law != "law"
    ]
    assert found == [
        (law.name, law.promise, [name for name, row in MERGES.items() if law.name in row.breaks])
        for law in MERGE_LAWS
    ]
