"""The pages in a real browser: they draw, can be used with the keyboard, and need no network."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scaling_fl.commands.report import ReportOptions, main
from scaling_fl.commands.run_page import leave_page
from scaling_fl.runtime.tracking.sources import open_run
from tests.from_benchmarks import load
from tests.made_up_runs import of, write

_BROWSER = load("browser")
Browser, browser, installed = _BROWSER.Browser, _BROWSER.browser, _BROWSER.installed

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.browser,
    pytest.mark.skipif(
        installed() is None, reason="needs chromium and chromedriver (apt install chromium-driver)"
    ),
]
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def shown() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of twelve runs, two of which may not be ranked with the others."""
    folder = tmp_path_factory.mktemp("pages")
    seeds = (1, 2, 3)
    runs = [of(seed, 20, merge={"method": name}) for name in ("mean", "ties", "dare")
            for seed in seeds]  # fmt: skip
    runs += [of(seed, 20, partition={"alpha": 10.0}) for seed in seeds[:2]]
    write([*runs, of(4, status="FAILED", finished=2, message=HOSTILE, notes=(HOSTILE,))], folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(ReportOptions(places=["runs"], out=Path("report"))) == 0
        leave_page(open_run("runs/1"))
    return folder


@pytest.fixture
def page(shown: Browser, folder: Path) -> Browser:
    shown.dark(False)
    shown.resize(1280, 9000)
    shown.open(folder / "report" / "index.html")
    shown.wait_for(ALL_DRAWN)
    return shown


ALL_DRAWN = """[...document.querySelectorAll(".chart")].every(
    (chart) => chart.dataset.drawn || chart.closest("[hidden]"))"""
VISIBLE = """return [...document.querySelectorAll(arguments[0])].filter(
    (part) => part.checkVisibility()).length"""


def test_every_chart_is_drawn_and_described_and_the_console_is_silent(page: Browser) -> None:
    charts = page.run(
        "return [...document.querySelectorAll('.chart svg')].map((svg) => "
        "[svg.querySelector('[aria-roledescription]') !== null || svg.hasAttribute('aria-label'),"
        " svg.closest('figure').getAttribute('aria-labelledby') !== null,"
        " svg.textContent.includes('NaN'), svg.querySelectorAll('path, line').length > 5])"
    )
    assert len(charts) >= 9
    assert {tuple(chart) for chart in charts} == {(True, True, False, True)}
    assert page.console() == []
    assert page.run("return document.querySelectorAll('img').length") == 0


def test_the_budget_is_chosen_by_the_keyboard(page: Browser) -> None:
    shown = """return [...document.querySelectorAll(".choosable:not([hidden])")].map(
        (part) => part.dataset.value)"""
    assert page.run(shown) == ["bytes", "bytes"]
    page.focus("input[name=budget-0]:checked")
    page.press("Right")
    assert page.run(shown) == ["rounds", "bytes"]
    page.wait_for(ALL_DRAWN)
    assert page.run("return document.querySelector('#budget-0-rounds svg') !== null")


def test_the_numbers_of_a_chart_are_at_hand_and_can_be_sorted(page: Browser) -> None:
    page.focus("[data-numbers=curves-0] summary")
    page.press("Enter")
    page.wait_for("document.querySelector('[data-numbers=curves-0] table')")
    column = """return [...document.querySelectorAll('[data-numbers=curves-0] tbody tr')].map(
        (row) => Number(row.cells[3].textContent))"""
    before = page.run(column)
    assert len(before) == 3 * 20 + 2, "the run that failed after two rounds is drawn, too"
    page.focus("[data-numbers=curves-0] thead th:nth-child(4) button")
    page.press("Enter")
    assert page.run(column) == sorted(before)
    page.press("Enter")
    assert page.run(column) == sorted(before, reverse=True)
    header = "return document.querySelector('[data-numbers=curves-0] [aria-sort]').ariaSort"
    assert page.run(header) == "descending"


def test_metric_axis_and_groups_are_chosen(page: Browser) -> None:
    change = """const [of, what, value] = arguments;
        const field = document.querySelector(`[data-of=${of}][data-what=${what}]`);
        field.value = value; field.dispatchEvent(new Event("change", { bubbles: true }));"""
    page.run(change, "curves-0", "metric", "validation.loss")
    page.run(change, "curves-0", "axis", "bytes")
    title = "document.querySelector('#curves-0-title').textContent"
    page.wait_for(f"{title} === 'loss by bytes'")
    page.wait_for("document.querySelector('#curves-0').textContent.includes('MB (10^6 bytes)')")
    page.run("document.querySelector('[data-what=line]').click()")
    page.wait_for("!document.querySelector('#curves-0').textContent.includes('merge.method=dare')")
    assert page.run(f"return {title}") == "loss by bytes"


def test_the_theme_is_that_of_the_system_until_another_one_is_chosen(page: Browser) -> None:
    def corner() -> Any:
        return Image.open(io.BytesIO(page.screenshot())).convert("RGB").getpixel((2, 2))

    assert corner() == (255, 255, 255)
    page.dark(True)
    assert corner() == (13, 17, 23)
    page.focus("#theme")
    page.press("Enter")
    assert corner() == (255, 255, 255)
    page.press("Space")
    assert corner() == (13, 17, 23)
    axis = "return getComputedStyle(document.querySelector('#curves-0 svg text')).fill"
    page.wait_for(ALL_DRAWN)
    assert page.run(axis) == "rgb(230, 237, 243)"
    page.run("localStorage.clear()")


def test_a_narrow_page_scrolls_in_its_tables_alone(page: Browser) -> None:
    page.resize(500, 900)
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.run(wide) == 0


def test_everything_that_can_be_used_is_reached_in_the_order_of_the_page(page: Browser) -> None:
    page.run("document.activeElement.blur()")
    reached = []
    for _ in range(12):
        page.press("Tab")
        reached.append(page.run("return document.activeElement.textContent.slice(0, 20)"))
    assert reached[:2] == ["Skip to the results", "Dark or light"]
    assert reached[2].startswith("Not all of these")
    assert len(set(reached)) > 9


def test_the_page_of_a_run_draws_by_the_script_beside_it_and_says_when_it_is_gone(
    shown: Browser, folder: Path
) -> None:
    shown.resize(1280, 6000)
    shown.open(folder / "runs" / "1" / "report.html")
    shown.wait_for(ALL_DRAWN)
    assert shown.run(VISIBLE, ".chart svg") >= 5
    assert shown.console() == []
    assert shown.run(VISIBLE, ".noscript") == 0
    (script,) = (folder / "runs").glob("page-*.js")
    script.rename(folder / "away.js")
    try:
        shown.open(folder / "runs" / "1" / "report.html")
        assert shown.run(VISIBLE, "header .noscript") == 1
        assert shown.run(VISIBLE, ".choices, [data-numbers]") == 0
        assert shown.run(VISIBLE, "table") >= 2
    finally:
        (folder / "away.js").rename(script)
        shown.console()
