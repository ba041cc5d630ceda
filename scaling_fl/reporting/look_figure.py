"""Draw what was understood of the data: the clients with their labels, and how long texts are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling_fl.reporting.partition_figure import (
    QUIET_COLOUR,
    TEXT_COLOUR,
    WIDTH_INCHES,
    draw_clients,
    height_inches,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LENGTHS_INCHES = 2.6
MAX_BINS = 60
CUT_COLOUR = "#c44e52"


def draw_look(
    path: str | Path, look: Mapping[str, Any], train: Sequence[int], test: Sequence[int]
) -> None:
    """Draw an inspection (``Inspection.to_json``); ``train`` and ``test`` are lengths of texts.

    The file appears whole; its format follows its suffix.
    """
    from matplotlib.figure import Figure

    clients = height_inches(len(look["label_names"]), len(look["histograms"]))
    figure = Figure(figsize=(WIDTH_INCHES, clients + LENGTHS_INCHES), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[clients, LENGTHS_INCHES])
    draw_clients(
        above, look["label_names"], look["histograms"], look["entropies"], look["client_names"]
    )
    _draw_lengths(below, look, train, test)
    save(figure, path)


def draw_lengths_alone(
    path: str | Path, look: Mapping[str, Any], train: Sequence[int], test: Sequence[int]
) -> None:
    """Draw how long conversations are (``LookAtConversations.to_json``), as ``draw_look`` does."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, LENGTHS_INCHES), layout="constrained")
    _draw_lengths(figure.subplots(), look, train, test)
    save(figure, path)


def _draw_lengths(
    axes: "Axes", look: Mapping[str, Any], train: Sequence[int], test: Sequence[int]
) -> None:
    limit = look["max_seq_len"]
    # A few very long texts must not press all others into one bar.
    longest = max(look[name]["lengths"]["95%"] for name in ("train", "test"))
    end = max(1, min(max(*train, *test), 2 * longest)) + 1
    step = max(1, -(-end // MAX_BINS))
    edges = list(range(0, end + step, step))
    for name, lengths, style in (("train", train, "stepfilled"), ("test", test, "step")):
        shown = [min(length, end) for length in lengths]
        axes.hist(
            shown,
            edges,
            weights=[100 / len(shown)] * len(shown),
            histtype=style,  # type: ignore[arg-type]
            color="#9db7d5" if name == "train" else "#222222",
            label=f"{name} ({len(shown):,})",
        )
    if limit < edges[-1]:  # texts of just that length are whole
        axes.axvline(limit + 1, color=CUT_COLOUR, linewidth=1.2)
    cut = look["train"]["num_cut"] / len(train)
    axes.set_title(
        f"Length of the texts; max_seq_len={limit} cuts {cut:.1%} of the training texts",
        fontsize=11,
        loc="left",
        color=TEXT_COLOUR,
    )
    more = ", longer texts in the last bar" if max(*train, *test) > end else ""
    axes.set_xlabel(f"tokens{more}", fontsize=10)
    axes.set_ylabel("% of the texts", fontsize=10)
    axes.tick_params(labelsize=9, color=QUIET_COLOUR)
    axes.set_xlim(0, edges[-1])
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
