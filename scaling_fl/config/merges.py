"""The merges that ``merge.method`` names: what makes each, and which settings it has.

The settings, their rules and their documentation follow from the rows of the table.
"""

from typing import Annotated, Literal

from pydantic import Field

from scaling_fl.config.merge_row import MergeRow, Option
from scaling_fl.config.own import or_own
from scaling_fl.config.types import Count, Density, Positive

_DENSITY = Option(Density, 0.2, "Share of every update that is merged, the largest coordinates.")
_TRIM_BY = Option(
    Literal["vector", "tensor"],
    "vector",
    "Keep the largest coordinates of the whole vector, or of each tensor.",
)
_DROP = Option(
    Annotated[float, Field(gt=0, lt=1)], 0.5, "Share of every update that is dropped at random."
)
_Half = Annotated[float, Field(ge=0, lt=0.5)]
_Part = Annotated[float, Field(ge=0, le=1)]
_EXAMPLES: dict[str, Option] = {
    "statistic_examples": Option(
        Count | None, None, "Most examples that a client's statistics are of; None: all it has."
    )
}
_BYZANTINE = Option(
    Annotated[int, Field(ge=0)], 1, "Number of wrong clients that the merge withstands."
)

_APART = {"gauge": "A and B are merged apart, each by its coordinates"}
_TRIMMED = {"one client": "only the largest coordinates of an update are merged"}
_RANDOM = {
    "numbers": "a client's number chooses the coordinates that are dropped",
    "one client": "coordinates are dropped at random, and the others are larger",
    "equal clients": "each client loses other coordinates",
    "weights": "each client loses other coordinates",
}
_ELECTED = {"zero client": "the client has no sign, and the mean is over those that have"}
_VOTES = {
    "weights": "all clients have one vote, whatever their shares",
    "zero client": "the client votes against every coordinate",
}
_ALIKE = {
    "weights": "all clients count alike, whatever their shares",
    "zero client": "all clients count alike, whatever their shares",
}
_COLUMNS = {"memory": "a worker needs a block of coordinates of all clients"}
_FACTORS = {"memory": "a worker needs the factors of all clients"}
_NEAREST = {
    "numbers": "of equally near clients, the lower number is chosen",
    "gauge": "distances are those of A and B, not of B A",
}

_KNOWN = {"zero client": "a client counts by what it knows of each value, not by its share alone"}

MERGES: dict[str, MergeRow] = {
    "mean": MergeRow(make="scaling_fl.methods.merging.means:mean", private=True, breaks=_APART),
    "mean_of_senders": MergeRow(
        make="scaling_fl.methods.merging.means:mean_of_senders",
        num_sums=2,
        private=False,
        breaks=_APART,
        partial=True,
    ),
    "task_arithmetic": MergeRow(
        make="scaling_fl.methods.merging.means:task_arithmetic",
        options={"scale": Option(Positive, 1.0, "Factor of the mean.")},
        private=True,
        breaks=_APART | {"one client": "the mean is multiplied"},
        tried_with={"scale": 0.5},
    ),
    "ties": MergeRow(
        make="scaling_fl.methods.merging.signs:ties",
        options={"density": _DENSITY, "trim_by": _TRIM_BY},
        by_coordinates=True,
        num_sums=2,
        private=False,
        breaks=_APART | _TRIMMED | _ELECTED,
    ),
    "dare": MergeRow(
        make="scaling_fl.methods.merging.masks:dare",
        options={"drop": _DROP},
        by_coordinates=True,
        private=False,
        breaks=_APART | _RANDOM,
    ),
    "dare_ties": MergeRow(
        make="scaling_fl.methods.merging.masks:dare_ties",
        options={"drop": _DROP, "density": _DENSITY, "trim_by": _TRIM_BY},
        by_coordinates=True,
        num_sums=2,
        private=False,
        breaks=_APART | _RANDOM | _ELECTED,
    ),
    "magnitude_mask": MergeRow(
        make="scaling_fl.methods.merging.masks:magnitude_mask",
        options={"density": _DENSITY, "trim_by": _TRIM_BY},
        by_coordinates=True,
        private=False,
        breaks=_APART | _TRIMMED,
    ),
    "consensus_mask": MergeRow(
        make="scaling_fl.methods.merging.masks:consensus_mask",
        options={
            "threshold": Option(
                Positive, 0.4, "A coordinate is a client's own above this times |mean - update|."
            ),
            "agreeing": Option(
                Count, 2, "Merge the coordinates that so many clients or more hold to be their own."
            ),
        },
        by_coordinates=True,
        keeps="updates",
        private=False,
        breaks=_APART | _VOTES,
    ),
    "flexlora": MergeRow(
        make="scaling_fl.methods.merging.low_rank:flexlora",
        options={
            "weigh_by": Option(
                Literal["client", "rank"],
                "client",
                "Average a component over all clients, or over those that hold its rank (raFLoRA).",
            )
        },
        low_rank=True,
        basis="split",
        private=False,
        breaks=_FACTORS,
    ),
    "alternate": MergeRow(
        make="scaling_fl.methods.merging.means:mean",
        turns=(("b", "rest"), ("a", "rest")),  # B first: while B is 0, A has no gradient
        private=True,
    ),
    "exact": MergeRow(
        make="scaling_fl.methods.merging.moving:exact",
        low_rank=True,
        moves_base=1,
        private=False,
        breaks=_FACTORS,
    ),
    "stack": MergeRow(
        make="scaling_fl.methods.merging.moving:stack",
        low_rank=True,
        moves_base=0,
        basis="drawn",
        private=False,
        breaks=_FACTORS,
    ),
    "share_a": MergeRow(
        make="scaling_fl.methods.merging.means:mean",
        personal=("b", "rest"),
        private=False,
        breaks={"gauge": "A is averaged, and B is the client's own"},
    ),
    "fisher": MergeRow(
        make="scaling_fl.methods.merging.informed:fisher",
        options={
            "normalise": Option(bool, True, "Divide each client's Fisher information by its norm.")
        },
        payloads={"fisher": "scaling_fl.learning.statistics:fisher"},
        of_payloads=_EXAMPLES,
        keeps="updates",
        private=False,
        breaks=_APART | _KNOWN,
    ),
    "regmean": MergeRow(
        make="scaling_fl.methods.merging.informed:regmean",
        options={
            "off_diagonal": Option(
                _Part, 0.9, "Factor of the Gram matrices' entries beside the diagonal."
            )
        },
        payloads={"grams": "scaling_fl.learning.statistics:grams"},
        of_payloads=_EXAMPLES,
        keeps="updates",
        private=False,
        breaks=_APART
        | _KNOWN
        | {"layers": "the values of an output are solved for together, so others move along"},
    ),
    "median": MergeRow(
        make="scaling_fl.methods.merging.robust:median",
        by_coordinates=True,
        keeps="columns",
        private=False,
        breaks=_APART | _ALIKE | _COLUMNS,
    ),
    "trimmed_mean": MergeRow(
        make="scaling_fl.methods.merging.robust:trimmed_mean",
        options={"trim": Option(_Half, 0.1, "Share of the clients left out on either side.")},
        by_coordinates=True,
        keeps="columns",
        private=False,
        breaks=_APART | _ALIKE | _COLUMNS,
        tried_with={"trim": 0.25},
    ),
    "krum": MergeRow(
        make="scaling_fl.methods.merging.robust:krum",
        options={"byzantine": _BYZANTINE},
        by_coordinates=True,
        keeps="columns",
        num_sums=2,
        private=False,
        breaks=_NEAREST | _ALIKE | _COLUMNS,
    ),
    "multikrum": MergeRow(
        make="scaling_fl.methods.merging.robust:multikrum",
        options={
            "byzantine": _BYZANTINE,
            "selected": Option(Count, 3, "Number of updates that are averaged."),
        },
        by_coordinates=True,
        keeps="columns",
        num_sums=2,
        private=False,
        breaks=_NEAREST | _ALIKE | _COLUMNS,
        tried_with={"selected": 2},
    ),
}

_OF_THE_USER = MergeRow(make="", private=False)

MergeName = Annotated[str, *or_own(MERGES, "my_module:my_merge")]


def row_of(method: str) -> MergeRow:
    """Return the row of a merge; of a function of the user, what the defaults say."""
    return MERGES.get(method, _OF_THE_USER)


def merges_by_coordinates() -> list[str]:
    """Name the merges that act on the factors of an adapter or on their products."""
    return [name for name, row in MERGES.items() if row.by_coordinates]


def merge_options() -> dict[str, tuple[Option, list[str]]]:
    """List the settings of all merges, each with the names of the merges that have the setting."""
    found: dict[str, tuple[Option, list[str]]] = {}
    for method, row in MERGES.items():
        for name, option in {**row.options, **row.of_payloads}.items():
            shared, methods = found.setdefault(name, (option, []))
            if option != shared:
                raise ValueError(f"two merges have different settings of one name: {name}")
            methods.append(method)
    return found
