"""The page is one file, has all in it that it tells, and shows texts as texts."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.reporting.report.equal_budget import budget_views
from scaling_fl.reporting.report.groups import alike_sets, group_runs
from scaling_fl.reporting.report.page import Report, Script, render
from tests.made_up_runs import of, read

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
SCRIPT = Script(library="let library;", library_version="1")


class Reader(HTMLParser):
    """Collects elements with their attributes, and the texts of some."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "elements are nested"

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page_of(tmp_path: Path) -> Any:
    def make(*runs: Any, **options: Any) -> str:
        sets = alike_sets(group_runs(read(runs, tmp_path)))
        views = [budget_views(alike, None) for alike in sets]
        report = Report(title="Runs", made="Now.", sets=sets, views=views, folder=tmp_path)
        return render(report, SCRIPT, **options)

    return make


def several() -> list[Any]:
    runs = [of(seed, merge={"method": name}) for seed in (1, 2) for name in ("mean", "ties")]
    return [*runs, of(1, partition={"alpha": 10.0}), of(3, status="FAILED", finished=1)]


def test_the_page_needs_nothing_but_itself_and_runs_only_its_own_script(page_of: Any) -> None:
    page = page_of(*several())
    reader = Reader(page)
    assert [a for tag, a in reader.elements if a.get("src")] == []
    assert reader.all("link") == []
    (policy,) = [m["content"] for m in reader.all("meta") if m.get("http-equiv")]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    (code,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert re.findall(r"script-src ([^;]*);", policy) == [f"'sha256-{digest}'"]


def test_with_a_script_of_its_own_a_page_is_small_and_says_when_it_is_missing(page_of: Any) -> None:
    page = page_of(of(1, 100), folder="..")
    assert len(page) < 100_000
    reader = Reader(page)
    assert [a["src"] for a in reader.all("script") if a.get("src")] == [f"../{SCRIPT.name}"]
    assert f"The charts need ../{SCRIPT.name}, which is missing" in page
    newer = Script(library=SCRIPT.library, library_version="2")
    assert newer.name != SCRIPT.name


def test_texts_of_the_record_are_texts_in_the_page(page_of: Any) -> None:
    runs = [
        of(1, notes=(HOSTILE,), status="FAILED", message=HOSTILE, author=HOSTILE),
        of(2, test=HOSTILE),
    ]
    page = page_of(*runs)
    reader = Reader(page)
    assert sum(HOSTILE in text for texts in reader.texts.values() for text in texts) >= 2
    assert reader.all("img") == []
    assert len(re.findall(r"<script(?! type=\"application/json\")", page)) == 1


def test_the_page_can_be_read_aloud_and_walked_through(page_of: Any) -> None:
    reader = Reader(page_of(*several()))
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert reader.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in reader.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))
    links = [a["href"] for a in reader.all("a") if str(a.get("href")).startswith("#")]
    assert {str(link)[1:] for link in links} <= set(ids)
    for figure in reader.all("figure"):
        assert figure["aria-labelledby"] in ids
    assert len(reader.all("caption")) == len(reader.all("table"))
    assert all(a["scope"] in ("col", "row") for a in reader.all("th"))
    labelled = len(reader.all("label"))
    assert labelled == len(reader.all("input")) + len(reader.all("select"))


def test_a_rule_that_ended_a_run_is_named(page_of: Any) -> None:
    page = page_of(of(1, finished=2, stopped_by="stop_when.bytes=5 (7 were sent)"))
    assert "COMPLETED, 2 of 4 rounds; ended by stop_when.bytes=5 (7 were sent)" in page


def test_what_may_not_be_ranked_is_said_first_and_stands_apart(page_of: Any) -> None:
    page = page_of(*several())
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", page)
    assert headings[:3] == [
        "Not all of these runs may be compared",
        "Part 1: accuracy on 20newsgroups_topics",
        "Part 2: accuracy on 20newsgroups_topics",
    ]
    assert "alpha 0.1, min_examples 1, 20 clients against dirichlet_by_client, alpha 10.0" in page
    ranked = page[page.index('id="part-0"') : page.index('id="part-1"')]
    assert "alpha=10.0" not in ranked
    assert "it did not come to its end (FAILED)" in ranked


def charts_in(page: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" data-chart="([^"]*)">(.*?)</script>', page)
    return {name: json.loads(text) for name, text in found}


def test_charts_are_named_have_units_and_their_axes_are_of_the_data(page_of: Any) -> None:
    charts = charts_in(page_of(*several()))
    assert {"budget-0-bytes", "budget-0-rounds", "budget-0-seconds", "curves-0"} <= charts.keys()
    intervals = charts["budget-0-bytes"]["spec"]
    assert "95 % interval" in intervals["description"]
    x = intervals["layer"][0]["encoding"]["x"]
    assert x["title"] == "accuracy within 14.0 MB of traffic"
    assert x["scale"] == {"zero": False}
    curves = charts["curves-0"]
    assert curves["axes"] == {
        "rounds": "round",
        "bytes": "bytes sent and received by all clients, MB (10^6 bytes)",
        "seconds": "time that the rounds took on their machine, s",
    }
    assert next(iter(curves["metrics"])) == "validation.accuracy"


def test_the_page_of_the_same_runs_is_the_same(page_of: Any, tmp_path: Path) -> None:
    runs = several()
    first = page_of(*runs)
    for folder in ("runs", "checkpoints"):
        (tmp_path / folder).rename(tmp_path / f"{folder} before")
    assert page_of(*runs) == first
