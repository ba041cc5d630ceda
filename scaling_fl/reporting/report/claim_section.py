"""What a published claim says, and what the runs say of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from scaling_fl.reporting.claims import Judgement
from scaling_fl.reporting.report.html import Markup, element, join, table

_CSS = {True: "better", False: "worse", None: "open"}


@dataclass(frozen=True, kw_only=True)
class TriedClaim:
    """A claim that has been tried."""

    title: str
    source: str
    notes: Sequence[str]
    judgements: Sequence[Judgement]

    @property
    def verdict(self) -> str:
        """Say in words what became of the claim as a whole."""
        held = [each.holds for each in self.judgements]
        if all(held):
            return "The claim holds here."
        if False in held:
            count = held.count(False)
            return f"Of {len(held)} things that the claim says, {count} {_do(count)} not hold here."
        count = held.count(None)
        return f"Of {len(held)} things that the claim says, {count} cannot be told by these runs."


def _do(count: int) -> str:
    return "does" if count == 1 else "do"


def claim_section(claim: TriedClaim) -> Markup:
    """Show each thing that the claim says with what was measured."""
    rows = [[each.expectation.says, _verdict(each), each.why] for each in claim.judgements]
    return join(
        [
            element("p", f"{claim.title}. Source: {claim.source}."),
            element("p", claim.verdict),
            table("What it says, and what these runs say", ["claim", "verdict", "measured"], rows,
                  wide=["claim", "measured"]),
            element("ul", *(element("li", note) for note in claim.notes)) if claim.notes else None,
        ]
    )  # fmt: skip


def _verdict(judgement: Judgement) -> Markup:
    return element("span", judgement.verdict, class_=f"verdict {_CSS[judgement.holds]}")
