"""Say what was understood of the data, as text of 80 columns."""

import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH = 80
MAX_ROWS = 12
MAX_NAME = 30
HEAD, TAIL = 150, 50
"""Characters of an example that are shown, of its beginning and its end."""


def render(look: Mapping[str, Any]) -> str:
    """Write an inspection (``Inspection.to_json``) as lines for a person."""
    train = look["train"]
    blocks = [
        _files(look),
        _labels(look),
        _clients(look),
        table(
            ["tokens of a text", *train["lengths"]],
            [[f"  {name}", *look[name]["lengths"].values()] for name in ("train", "test")],
        ),
        _cuts(look),
        [
            f"Examples as {shortened(look['model'], 40)} will see them:",
            *(line for example in look["examples"] for line in _example(example)),
        ],
    ]
    if look["notes"]:
        blocks.append(
            [line for note in look["notes"] for line in wrapped(f"note: {_printable(note)}")]
        )
    return "\n\n".join("\n".join(block) for block in blocks)


def _files(look: Mapping[str, Any]) -> list[str]:
    train, test = look["train"], look["test"]
    lines = []
    for name, split in (("train", train), ("test", test)):
        where = _printable(split["path"] or f"the data of {look['task_name']} itself")
        if name == "test" and look["test_share"]:
            where = f"{look['test_share']:.0%} of the rows, held out"
        lines += wrapped(f"{name:<6} {split['num_examples']:>9,} examples: {where}", "         ")
    if train["columns"]:
        columns = ", ".join(map(shortened, train["columns"]))
        lines += wrapped(f"columns: {columns}", "         ")
        pair = f", and beside it {_joined(look['pairs'])}" if look["pairs"] else ""
        lines += wrapped(
            f"the model reads {_joined(look['texts'])}{pair}; it learns {shortened(look['label'])}"
        )
    return lines


def _joined(columns: Sequence[str]) -> str:
    names = " and ".join(map(shortened, columns))
    return f"{names} (joined by a space)" if len(columns) > 1 else names


def _labels(look: Mapping[str, Any]) -> list[str]:
    train, test = (look[name]["label_counts"] for name in ("train", "test"))
    rows = [
        [f"  {shortened(name)}", f"{a:,}", share(a, sum(train)), f"{b:,}", share(b, sum(test))]
        for name, a, b in zip(look["label_names"], train, test, strict=True)
    ]
    return table([f"{len(rows)} labels", "train", "", "test", ""], first_rows(rows, "labels"))


def _clients(look: Mapping[str, Any]) -> list[str]:
    names = look["client_names"] or [str(client) for client in range(len(look["histograms"]))]
    rows = [
        [f"  {shortened(name)}", f"{sum(row):,}", f"{abs(bits):.2f}", _commonest(look, row)]
        for name, row, bits in zip(names, look["histograms"], look["entropies"], strict=True)
    ]
    sizes = [sum(row) for row in look["histograms"]]
    title = f"{len(rows)} client{'s' * (len(rows) > 1)}"
    lines = table([title, "examples", "bits", "commonest label"], first_rows(rows, "clients"))
    same = min(sizes) == max(sizes)
    size = f"{max(sizes):,} examples each" if same else f"{min(sizes):,} to {max(sizes):,} examples"
    return [
        *lines,
        *wrapped(
            f"  {_printable(look['partition'])}; {size}; bits: the entropy of a client's labels"
        ),
    ]


def _commonest(look: Mapping[str, Any], row: Sequence[int]) -> str:
    if not any(row):
        return "none"
    label = max(range(len(row)), key=row.__getitem__)
    return f"{shortened(look['label_names'][label], 20)} ({row[label] / sum(row):.0%})"


def first_rows(rows: list[list[str]], what: str) -> list[list[str]]:
    """Keep the first rows of a table, and say how many more there are."""
    if len(rows) <= MAX_ROWS:
        return rows
    more = [f"  and {len(rows) - MAX_ROWS} more {what}", *[""] * (len(rows[0]) - 1)]
    return [*rows[:MAX_ROWS], more]


def share(count: int, total: int) -> str:
    """Write a count in percent; nothing of nothing."""
    return f"{count / total:.1%}" if total else ""


def _cuts(look: Mapping[str, Any]) -> list[str]:
    found = [
        f"{split['num_cut']:,} of {split['num_examples']:,} {name} texts "
        f"({share(split['num_cut'], split['num_examples'])}) and "
        f"{share(split['num_cut_tokens'], split['num_tokens'])} of their tokens"
        for name, split in (("training", look["train"]), ("test", look["test"]))
        if split["num_cut"]
    ]
    what = ", ".join(found) or "no text"
    return wrapped(f"max_seq_len={look['max_seq_len']} cuts {what}")


def _example(example: Mapping[str, Any]) -> Iterable[str]:
    label = f"  {shortened(example['label'])} ({example['num_tokens']} tokens): "
    return textwrap.wrap(label + clipped(example["text"]), WIDTH, subsequent_indent="    ")


def clipped(text: str) -> str:
    """Write the beginning and the end of a text on one line."""
    text = _printable(text)
    if len(text) > HEAD + TAIL:
        return f"{text[:HEAD].rstrip()} ... {text[-TAIL:].lstrip()}"
    return text


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Align columns: names and a last column of words to the left, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        parts = [f"{row[0]:<{widths[0]}}"]
        for i, cell in enumerate(row[1:], start=1):
            is_word = i == len(row) - 1 and "label" in head[i]
            parts.append(f"  {cell}" if is_word else f"{cell:>{widths[i] + 2}}")
        lines.append("".join(parts).rstrip())
    return lines


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """Break a text into lines, all but the first one indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent)


def shortened(name: str, length: int = MAX_NAME) -> str:
    """Write a name on one line and, if it is longer, cut it there."""
    name = _printable(name)
    return name if len(name) <= length else f"{name[: length - 3]}..."


def _printable(text: str) -> str:
    """Write a text on one line, without characters that would move a terminal's cursor."""
    shown = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    return " ".join(shown.split())
