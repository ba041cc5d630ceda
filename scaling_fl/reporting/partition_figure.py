"""Draw how the labels lie on the clients."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CLIENTS = 256
WIDTH_INCHES = 9.0
MAX_LEGEND_ENTRIES = 20
LEGEND_ENTRY_INCHES = 0.2
BAR_THICKNESS = 0.82
MAX_NAME_LENGTH = 24
TEXT_COLOUR, QUIET_COLOUR = "#222222", "#6b6b6b"
DOTS_PER_INCH = 150
Colour = tuple[float, float, float, float]


def draw(
    path: str | Path,
    label_names: Sequence[str],
    histograms: Sequence[Sequence[int]],
    entropies: Sequence[float],
    client_names: Sequence[str] | None = None,
) -> None:
    """Draw one bar per client, made of its examples per label, with its entropy at the right.

    The file appears whole; its format follows its suffix. ``histograms`` has a row for each client
    and a column for each label; entropies are in bits. Clients without names have numbers.
    """
    from matplotlib.figure import Figure

    height = max(2.2, height_inches(len(label_names), len(histograms)))
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.add_subplot()
    draw_clients(axes, label_names, histograms, entropies, client_names)
    save(figure, path)


def height_inches(num_labels: int, num_clients: int) -> float:
    """Return the height that the bars of the clients take, with the names of the labels."""
    shown = min(num_clients, MAX_CLIENTS)
    rows = 1.1 + shown * _row_inches(shown)
    return max(rows, 0.9 + min(num_labels, MAX_LEGEND_ENTRIES) * LEGEND_ENTRY_INCHES)


def draw_clients(
    axes: "Axes",
    label_names: Sequence[str],
    histograms: Sequence[Sequence[int]],
    entropies: Sequence[float],
    client_names: Sequence[str] | None = None,
) -> None:
    """Draw the bars of the clients into axes of ``height_inches``."""
    title = "Labels of each client; at the right its label entropy in bits"
    if len(histograms) > MAX_CLIENTS:
        title += f" (the first {MAX_CLIENTS} of {len(histograms)} clients)"
        histograms, entropies = histograms[:MAX_CLIENTS], entropies[:MAX_CLIENTS]
    num_clients, colours = len(histograms), _colours(len(label_names))
    row_inches = _row_inches(num_clients)
    axes.set_title(title, fontsize=11, loc="left", color=TEXT_COLOUR)
    _draw_bars(axes, colours, histograms)
    _write_entropies(axes, histograms, entropies, row_inches)
    names = client_names or [str(client) for client in range(num_clients)]
    _label_clients(axes, names[:num_clients], row_inches)
    _draw_legend(axes, label_names, colours)


def save(figure: "Figure", path: str | Path) -> None:
    """Save a figure so that the file appears whole."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    figure.savefig(temporary, dpi=DOTS_PER_INCH)
    os.replace(temporary, path)


def _row_inches(num_clients: int) -> float:
    # A row shrinks with the number of clients, down to what a bar still needs to be seen.
    return min(0.42, max(0.11, 9.0 / num_clients))


def _draw_bars(
    axes: "Axes", colours: Sequence[Colour], histograms: Sequence[Sequence[int]]
) -> None:
    from matplotlib.collections import PolyCollection

    left = [0] * len(histograms)
    for label, colour in enumerate(colours):
        right = [start + row[label] for start, row in zip(left, histograms, strict=True)]
        boxes = [_box(*sides, client) for client, sides in enumerate(zip(left, right, strict=True))]
        # One collection per label: a rectangle for each bar takes seconds for many clients.
        axes.add_collection(PolyCollection(boxes, facecolors=[colour], linewidths=0))
        left = right


def _box(left: float, right: float, client: int) -> list[tuple[float, float]]:
    low, high = client - BAR_THICKNESS / 2, client + BAR_THICKNESS / 2
    return [(left, low), (right, low), (right, high), (left, high)]


def _write_entropies(
    axes: "Axes",
    histograms: Sequence[Sequence[int]],
    entropies: Sequence[float],
    row_inches: float,
) -> None:
    longest = max(1, *(sum(row) for row in histograms))
    for client, (row, entropy) in enumerate(zip(histograms, entropies, strict=True)):
        axes.text(
            sum(row) + 0.008 * longest,
            client,
            f"{max(0.0, entropy):.2f}",
            va="center",
            fontsize=_font_size(row_inches),
            color=QUIET_COLOUR,
        )
    # Room for the numbers at the right of the longest bar.
    axes.set_xlim(0, 1.07 * longest)


def _label_clients(axes: "Axes", names: Sequence[str], row_inches: float) -> None:
    axes.set_ylim(len(names) - 0.4, -0.6)  # client 0 at the top
    axes.set_yticks(range(len(names)), [_shortened(name) for name in names])
    axes.tick_params(axis="y", length=0, labelsize=_font_size(row_inches), pad=2)
    axes.tick_params(axis="x", labelsize=9, color=QUIET_COLOUR)
    axes.set_ylabel("client", fontsize=10)
    axes.set_xlabel("examples", fontsize=10)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _draw_legend(axes: "Axes", names: Sequence[str], colours: Sequence[Colour]) -> None:
    from matplotlib.patches import Patch

    # Of many labels every so many-th is named; with ordered colours the others lie in between.
    stride = -(-len(names) // MAX_LEGEND_ENTRIES)
    shown = range(0, len(names), stride)
    axes.legend(
        handles=[Patch(color=colours[label], label=_shortened(names[label])) for label in shown],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        fontsize=9,
        frameon=False,
        handlelength=1.0,
        handleheight=1.0,
        title=f"{len(shown)} of {len(names)} labels" if stride > 1 else None,
    )


def _colours(num_labels: int) -> list[Colour]:
    import matplotlib

    if num_labels <= 10:
        return [matplotlib.colormaps["tab10"](label) for label in range(num_labels)]
    if num_labels <= 20:
        return [matplotlib.colormaps["tab20"](label) for label in range(num_labels)]
    spread = matplotlib.colormaps["turbo"]
    return [spread(label / (num_labels - 1)) for label in range(num_labels)]


def _font_size(row_inches: float) -> float:
    return min(9.0, max(5.0, 72 * row_inches * 0.72))


def _shortened(name: str) -> str:
    # Matplotlib leaves names with a leading underscore out of a legend.
    name = name.lstrip("_") or name
    name = name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…"
    return name.replace("$", r"\$")  # which would begin a formula
