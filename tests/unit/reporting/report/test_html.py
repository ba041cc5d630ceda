"""Whatever is not markup is escaped, wherever it is put."""

import json
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.reporting.report.html import Cell, Markup, details, element, json_script, table

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&"


class Reader(HTMLParser):
    """Collects the elements and the texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@given(st.text(), st.text())
def test_a_text_is_a_text_in_an_element_and_in_an_attribute(text: str, title: str) -> None:
    page = Reader(element("p", text, title=title))
    assert [tag for tag, _ in page.tags] == ["p"]
    assert page.tags[0][1]["title"] == title
    assert "".join(page.texts) == text


def test_markup_is_left_as_it_is_and_nothing_is_nothing() -> None:
    inner = element("b", "x < y")
    assert element("p", inner, None, " & ", 3) == "<p><b>x &lt; y</b> &amp; 3</p>"
    assert element("input", type="radio", checked=True, disabled=False, data_of=None) == (
        '<input type="radio" checked>'
    )
    assert isinstance(details("more", "text"), Markup)


@given(st.recursive(st.none() | st.text() | st.floats(), st.lists))
def test_data_for_a_script_cannot_end_its_element(value: object) -> None:
    page = Reader(json_script([value, HOSTILE], id="data"))
    assert [tag for tag, _ in page.tags] == ["script"]
    assert json.loads("".join(page.texts))[1] == HOSTILE


def test_a_table_is_named_reached_by_the_keyboard_and_sorted_by_numbers() -> None:
    page = Reader(
        table("Sizes", ["run", "bytes"], [[HOSTILE, Cell("2 MB", 2e6)]], numeric=["bytes"])
    )
    box, *_ = page.tags
    assert box == (
        "div",
        {"class": "scroll", "role": "region", "tabindex": "0", "aria-label": "Table: Sizes"},
    )
    assert [attributes.get("scope") for tag, attributes in page.tags if tag == "th"] == [
        "col",
        "col",
        "row",
    ]
    assert page.tags[-1] == ("td", {"class": "number", "data-key": "2000000.0"})
    assert HOSTILE in page.texts
