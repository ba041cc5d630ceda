"""Say which laws are kept and which are broken, as text of 80 columns."""

import textwrap
from collections.abc import Mapping, Sequence

WIDTH = 80
Verdicts = Sequence[Mapping[str, str]]
"""``Verdict.to_json`` of every law."""


def render(verdicts: Verdicts) -> str:
    """Write what became of each law, and then the case that breaks it."""
    lines = [_row("law", "outcome", "promise")]
    lines += [_row(one["law"], one["outcome"], one["promise"]) for one in verdicts]
    lines += [line for one in verdicts if one["outcome"] != "kept" for line in _reason(one)]
    return "\n".join(lines)


def render_all(found: Mapping[str, Verdicts]) -> str:
    """Write one line for each name, and the cases that break what they should not break."""
    width = max(len(name) for name in ("name", *found))
    lines = [f"{'name':<{width}}  kept  broken as declared"]
    for name, verdicts in found.items():
        kept = sum(one["outcome"] == "kept" for one in verdicts)
        declared = [one["law"] for one in verdicts if one["outcome"] == "broken as declared"]
        lines += _wrapped(f"{name:<{width}}  {kept:>4}  ", ", ".join(declared) or "none")
    for name, verdicts in found.items():
        bad = [one for one in verdicts if one["outcome"] in ("BROKEN", "NOT BROKEN")]
        lines += [line for one in bad for line in _reason(one, f"{name}: ")]
    return "\n".join(lines)


def _row(law: str, outcome: str, promise: str) -> str:
    return "\n".join(_wrapped(f"{law:<13}  {outcome:<18}  ", promise))


def _reason(one: Mapping[str, str], prefix: str = "") -> list[str]:
    said = f"{prefix}{one['law']} is {one['outcome']}"
    if one["reason"]:
        said += f": {one['reason']}"
    lines = ["", *_wrapped("", said)]
    if not one["example"]:
        return [*lines, "  no case was found that breaks it"]
    for line in one["example"].split("\n"):
        indent = len(line) - len(line.lstrip()) + 2
        lines += _wrapped(" " * indent, line.strip(), indent + 2)
    return [*lines, *_wrapped("  then ", one["found"], 7)]


def _wrapped(head: str, text: str, indent: int | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * (len(head) if indent is None else indent),
        break_on_hyphens=False,
    )
