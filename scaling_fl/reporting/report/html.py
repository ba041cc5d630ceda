"""HTML from plain values: whatever is not markup already is escaped."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from scaling_fl.core.json_text import finite


class Cell(NamedTuple):
    """What a cell of a table shows, and the number by which its column is sorted."""

    text: object
    key: float | None


class Markup(str):
    """Text that is HTML; any other text is escaped where it is put into an element."""

    __slots__ = ()


_EMPTY = {"br", "meta", "link", "input"}


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """Write an element; None and False leave an attribute out, True gives it no value.

    The underscores of an attribute's name become hyphens, and one at its end is dropped.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        written.append(label if value is True else f'{label}="{escape(str(value))}"')
    start = " ".join([name, *written])
    if name in _EMPTY:
        return Markup(f"<{start}>")
    return Markup(f"<{start}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Markup:
    """Put markup and texts one after the other; None is nothing."""
    parts = [c if isinstance(c, Markup) else escape(str(c)) for c in children if c is not None]
    return Markup("".join(parts))


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numeric: Iterable[str] = (),
    wide: Iterable[str] = (),
    is_sortable: bool = False,
    is_filtered: bool = False,
) -> Markup:
    """Write a table that scrolls by itself where it is too wide; the first column names the rows.

    The columns named ``numeric`` are written to the right, and those named ``wide`` are given room.
    """
    classes = dict.fromkeys(wide, "wide") | dict.fromkeys(numeric, "number")
    styles = [classes.get(name) for name in header]
    columns = zip(header, styles, strict=True)
    head = element("tr", *(element("th", n, scope="col", class_=style) for n, style in columns))
    body = [
        element("tr", *(_cell(n, cell, styles[n]) for n, cell in enumerate(row))) for row in rows
    ]
    inner = element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", *body),
        data_sortable=is_sortable,
        data_filtered=is_filtered,
    )
    # What scrolls must be reached by the keyboard, too.
    return element(
        "div", inner, class_="scroll", role="region", tabindex="0", aria_label=f"Table: {caption}"
    )


def _cell(column: int, cell: object, style: str | None) -> Markup:
    text, key = cell if isinstance(cell, Cell) else (cell, None)
    if column == 0:
        return element("th", text, scope="row", data_key=key)
    return element("td", text, class_=style, data_key=key)


def details(summary: str, *children: object, **attributes: object) -> Markup:
    return element("details", element("summary", summary), *children, **attributes)


def json_script(value: Any, **attributes: object) -> Markup:
    """Write data for a script; no text in it can end the element."""
    text = json.dumps(finite(value), allow_nan=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return element("script", Markup(safe), type="application/json", **attributes)
