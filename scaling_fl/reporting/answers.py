"""Answers of a model before and after its training, beside each other or, in a pipe, in lines."""

import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

_NARROWEST = 40
_BETWEEN = "  "


class Answered(NamedTuple):
    """A prompt, and what the model answered."""

    prompt: str
    before: str
    after: str


def as_text(answered: Sequence[Answered], width: int | None) -> str:
    """Write the answers side by side for a terminal of that width; None: one below the other."""
    shown = [Answered(*map(_printable, each)) for each in answered]
    if width is None or width < _NARROWEST:
        return "\n\n".join(map(_lines, shown))
    return "\n\n".join(_beside(each, width) for each in shown)


def _lines(each: Answered) -> str:
    return f"prompt: {each.prompt}\nbefore: {each.before}\nafter:  {each.after}"


def _beside(each: Answered, width: int) -> str:
    room = (width - len(_BETWEEN)) // 2
    head = [*_folded(each.prompt, width), "-" * width, _row("before", "after", room)]
    pairs = zip_longest(_folded(each.before, room), _folded(each.after, room), fillvalue="")
    return "\n".join([*head, *(_row(first, second, room) for first, second in pairs)])


def _row(first: str, second: str, room: int) -> str:
    return f"{first:<{room}}{_BETWEEN}{second}".rstrip()


def _folded(text: str, width: int) -> list[str]:
    lines = [textwrap.wrap(line, width) or [""] for line in text.strip().split("\n")]
    return [part for line in lines for part in line]


def _printable(text: str) -> str:
    """Escape what a terminal would take for an order."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
