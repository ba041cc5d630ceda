"""Text for a terminal: folded between words, as a terminal itself does not do it."""

import os
import re
import textwrap
from typing import Protocol

_KEPT = "\0"
"""Stands for a space at which a line is not folded."""
_QUOTED = re.compile(r"(?<!\w)'[^' ]*( [^' ]+)+'(?!\w)")
_COLUMN = re.compile(r"( +)\S+( \S+)*  +(?=\S)")


class _Writable(Protocol):
    def fileno(self) -> int: ...


def width_of(stream: _Writable) -> int | None:
    """Return the columns of a terminal; None for anything else, whose reader folds by itself."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None


def fold(text: str, width: int | None) -> str:
    """Fold lines that are longer than ``width``; None folds nothing.

    A word, such as a path, is never broken. Indented lines below one that ends with a colon are
    commands to be typed, and stay whole. What follows a name and two spaces stays in its column.
    """
    if width is None:
        return text
    folded: list[str] = []
    are_commands = False
    for line in text.split("\n"):
        is_command = are_commands and line.startswith("  ")
        folded += [line] if len(line) <= width or is_command else _folded(line, width)
        are_commands = is_command or line.endswith(":")
    return "\n".join(folded)


def _folded(line: str, width: int) -> list[str]:
    column = _COLUMN.match(line)
    indent = column.end() if column and column.end() < width // 2 else _indent(line) + 2
    lines = textwrap.wrap(
        _kept_together(line, width - indent),
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )
    return [part.replace(_KEPT, " ") for part in lines]


def _kept_together(line: str, room: int) -> str:
    """Mark the spaces inside quotes, and inside the parts between bars where there is room."""
    line = _QUOTED.sub(lambda match: match[0].replace(" ", _KEPT), line)
    column = _COLUMN.match(line)
    start = column.end() if column else _indent(line)
    if " | " in line:
        parts = line[start:].split(" | ")
        kept = [p.replace(" ", _KEPT) if len(p) <= room else p for p in parts]
        return line[:start].replace(" ", _KEPT) + f"{_KEPT}| ".join(kept)
    return line[:start].replace(" ", _KEPT) + line[start:]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
