"""The page: everything in one file that opens from the disk, without a network."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scaling_fl.reporting.report.claim_section import TriedClaim, claim_section
from scaling_fl.reporting.report.client_section import client_section
from scaling_fl.reporting.report.curve_section import curve_section
from scaling_fl.reporting.report.data import ReportRun
from scaling_fl.reporting.report.equal_budget import BudgetView
from scaling_fl.reporting.report.groups import AlikeSet, RunGroup
from scaling_fl.reporting.report.html import Markup, element, join
from scaling_fl.reporting.report.records import (
    code_section,
    failures_section,
    runs_section,
    settings_section,
)
from scaling_fl.reporting.report.verdicts import budget_section, facts, outcome, refusal, title_of

_ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a page is made of."""

    title: str
    made: str
    """When and how it was made, in words."""
    sets: Sequence[AlikeSet]
    views: Sequence[Sequence[BudgetView]]
    """Of each set: what its groups reached at each budget."""
    folder: Path
    """Where it will lie, which its links start from."""
    tables: Sequence[str] = ()
    """Files with all numbers, relative to the folder."""
    claim: TriedClaim | None = None
    """The published claim that the runs try."""

    @property
    def groups(self) -> list[RunGroup]:
        return [group for alike in self.sets for group in alike.groups]

    @property
    def runs(self) -> list[ReportRun]:
        return [run for group in self.groups for run in group.runs]


@cache
def asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Script:
    """What draws the charts of a page."""

    library: str | None
    """The charting library, as JavaScript; None where it has not been made."""
    library_version: str

    @property
    def text(self) -> str | None:
        return self.library and f"{self.library}\n{asset('page.js')}"

    @property
    def name(self) -> str:
        """Name its file by what is in it, so that pages of two versions do not clash."""
        content = f"{self.library_version} {asset('page.js')}"
        return f"page-{hashlib.sha256(content.encode()).hexdigest()[:8]}.js"


def render(report: Report, script: Script, *, folder: str | None = None) -> str:
    """Write the page; with ``folder`` its script stays there, in a file of its own.

    Without the script, everything but the charts can be read.
    """
    if folder is None:
        assert script.text, "a page of one file has its script in it"
        # Inside an element, the text that ends it must not occur.
        code = script.text.replace("</script", "<\\/script")
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        policy, lost, drawing = f"'sha256-{digest}'", None, element("script", Markup(code))
    else:
        place = f"{folder}/{script.name}"
        policy, drawing = "'self' file:", element("script", src=place)
        lost = (
            f"The charts need {place}, which is missing: `scripts/report.py` of this run puts it "
            "there, and makes a page of one file."
        )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=(
            f"default-src 'none'; script-src {policy}; style-src 'unsafe-inline'; "
            "img-src data: blob:; base-uri 'none'; form-action 'none'")),
        element("title", report.title),
        element("style", Markup(asset("page.css"))),
    )  # fmt: skip
    body = element("body", *_body(report, lost), drawing)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _body(report: Report, lost: str | None) -> list[Markup | None]:
    sections = list(_sections(report))
    named = [*((name, title) for name, title, _ in sections), ("how", "How to read this page")]
    links = [element("li", element("a", title, href=f"#{name}")) for name, title in named]
    return [
        element("a", "Skip to the results", href="#main", class_="skip"),
        element(
            "header",
            element("h1", report.title),
            element("p", report.made),
            element("button", "Dark or light", type="button", id="theme"),
            element("p", lost, class_="warning noscript") if lost else None,
        ),
        element("nav", element("ul", *links), aria_label="Parts of this page"),
        element("main", *(_section(*each) for each in sections), id="main"),
        element("footer", *_how_to_read(report)),
    ]


def _section(name: str, title: str, content: Markup) -> Markup:
    return element("section", element("h2", title, id=name), content, aria_labelledby=name)


def _sections(report: Report) -> list[tuple[str, str, Markup]]:
    parts: list[tuple[str, str, Markup]] = []
    if report.claim:
        parts.append(("claim", "The claim", claim_section(report.claim)))
    if refused := refusal(report.sets):
        parts.append(("unlike", "Not all of these runs may be compared", refused))
    if len(report.runs) == 1:
        parts.append(("outcome", "What it came to", outcome(report.runs[0])))
    for number, (alike, views) in enumerate(zip(report.sets, report.views, strict=True)):
        is_compared = len(alike.runs) > 1
        content = [
            facts(alike),
            budget_section(alike, views, number) if is_compared else None,
            element("h3", "Curves"),
            curve_section(alike, views, number),
        ]
        parts.append((f"part-{number}", title_of(alike, report.sets), join(content)))
    if clients := client_section(report.runs):
        parts.append(("clients", "Clients", clients))
    parts += [
        ("settings", "Settings", settings_section(report.groups)),
        ("runs", "Runs", runs_section(report.groups, report.folder)),
        ("failures", "Left-out clients and warnings", failures_section(report.runs)),
        ("code", "Code", code_section(report.runs)),
    ]
    return parts


def _how_to_read(report: Report) -> list[Markup]:
    links = [element("li", element("a", name, href=name)) for name in report.tables]
    parts = [
        element("h2", "How to read this page", id="how"),
        Markup(asset("how_to_read.html")),
    ]
    if links:
        parts += [element("p", "All numbers, of every round and client:"), element("ul", *links)]
    return parts
