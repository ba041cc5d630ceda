"""Try laws, and find the smallest case that breaks one."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from threading import BrokenBarrierError
from typing import Any, Generic, Protocol, TypeVar

from hypothesis import Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from scaling_fl.conformance.models import Broken

KEPT, DECLARED, BROKEN, UNBROKEN = "kept", "broken as declared", "BROKEN", "NOT BROKEN"
_PATIENCE = 20
"""A case that breaks a law that is declared to be broken may be rare."""
_SECONDS = 10.0
"""The time to make one counter-example smaller."""


class WithBreaks(Protocol):
    @property
    def breaks(self) -> Mapping[str, str]:
        """Law -> why it is broken by the nature of what is tried."""


Tried = TypeVar("Tried", bound=WithBreaks)


def always(tried: object) -> bool:
    """Say that a law applies to all that is tried."""
    return True


@dataclass(frozen=True)
class Law(Generic[Tried]):
    """A promise, and the cases on which it is tried."""

    name: str
    promise: str
    check: Callable[[Tried, Any], None]
    """Raises Broken, or what the function under trial raises."""
    cases: Callable[[Tried], st.SearchStrategy[Any]]
    """Draws cases, which have ``drawn``: equal cases have drawn the same."""
    describe: Callable[[Any], str] = str
    most_cases: int = 1000
    """Other cases would say no more."""
    applies: Callable[[Tried], bool] = always
    """Says whether the law has a meaning for what is tried."""


@dataclass(frozen=True)
class Verdict:
    """What became of a law."""

    law: str
    promise: str
    outcome: str
    reason: str = ""
    """Why the law is broken, as declared."""
    example: str = ""
    """The smallest case that was found to break the law."""
    found: str = ""
    """What is wrong in that case."""

    @property
    def is_good(self) -> bool:
        return self.outcome in (KEPT, DECLARED)

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def judge(
    laws: Sequence[Law[Tried]], tried: Tried, *, num_cases: int, shrink: bool = True
) -> list[Verdict]:
    """Try each law that applies on ``num_cases`` cases, on more if it is declared to be broken.

    The cases are the same in every call. ``shrink`` makes counter-examples small.

    Raises:
        ValueError: a law is declared to be broken that does not exist.
    """
    unknown = tried.breaks.keys() - {law.name for law in laws}
    if unknown:
        raise ValueError(f"there is no law {', '.join(sorted(unknown))}")
    return [_judge(law, tried, num_cases, shrink) for law in laws if law.applies(tried)]


def _judge(law: Law[Tried], tried: Tried, num_cases: int, shrink: bool) -> Verdict:
    reason = tried.breaks.get(law.name, "")
    num_cases *= _PATIENCE if reason else 1
    example = _counter_example(law, tried, num_cases, shrink)
    if example is None:
        return Verdict(law.name, law.promise, UNBROKEN if reason else KEPT, reason)
    return Verdict(law.name, law.promise, DECLARED if reason else BROKEN, reason, *example)


def _counter_example(
    law: Law[Tried], tried: Tried, num_cases: int, shrink: bool
) -> tuple[str, str] | None:
    """Return the smallest case that is found to break a law, and what is wrong in it."""
    wrong: dict[Any, str] = {}
    end = float("inf")

    def breaks(case: Any) -> bool:
        nonlocal end
        key = case.drawn
        if key in wrong or time.monotonic() > end:
            return key in wrong
        try:
            law.check(tried, case)
            return False
        except Broken as broken:
            wrong[key] = str(broken)
        except BrokenBarrierError:
            wrong[key] = "the workers do not make the same calls of the round in the same order"
        except Exception as error:
            wrong[key] = f"it raises {type(error).__name__}: {error}"
        end = min(end, time.monotonic() + _SECONDS)
        return True

    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    most = min(num_cases, law.most_cases)
    chosen = settings(max_examples=most, database=None, deadline=None, phases=phases)
    try:
        case = find(law.cases(tried), breaks, settings=chosen, random=Random(0))
    except NoSuchExample:
        return None
    return law.describe(case), wrong[case.drawn]
