"""What an evaluation found, as text: the metrics, and a table of the classes."""

from collections.abc import Mapping, Sequence

KINDS = ("precision", "recall", "f1")


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Write one metric a line, with all the digits that tell it apart."""
    width = max(len(name) for name in metrics)
    return "\n".join(f"{name:<{width}}  {value!r}" for name, value in metrics.items())


def class_table(
    metrics: Mapping[str, float], label_names: Sequence[str], num_examples: Sequence[int]
) -> str:
    """Write precision, recall and F1 of every class with its number of examples, and the means.

    ``metrics`` holds ``validation.precision.<label>`` and so on, ``num_examples`` one number per
    label. A label without scores has a dash for each, and no part in the means.
    """
    rows = [[metrics.get(f"validation.{kind}.{name}") for kind in KINDS] for name in label_names]
    columns = [
        [score for score in column if score is not None] for column in zip(*rows, strict=True)
    ]
    means = [sum(column) / len(column) for column in columns]
    width = max(len(name) for name in (*label_names, "mean"))
    head = "".join(f"{kind:>11}" for kind in KINDS)
    lines = [f"{'class':<{width}}{head}{'examples':>10}"]
    counts = (*num_examples, sum(num_examples))
    for name, row, count in zip((*label_names, "mean"), (*rows, means), counts, strict=True):
        lines.append(f"{name:<{width}}{''.join(map(_cell, row))}{count:10}")
    return "\n".join(lines)


def _cell(score: float | None) -> str:
    return f"{'-':>11}" if score is None else f"{score:11.4f}"
