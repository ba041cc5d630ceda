"""Claims on file: what was published, the runs that try it here, and what they are to show."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from scaling_fl.commands.endings import Misused
from scaling_fl.commands.run_query import RunCondition, read_condition
from scaling_fl.core.errors import UserError
from scaling_fl.reporting.claims import Expectation, Judgement, judge
from scaling_fl.reporting.comparison import MeasuredRun
from scaling_fl.reporting.report.data import ReportRun
from scaling_fl.runtime.storage.base import explained

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "claims"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Expected(_Strict):
    """One thing that a claim says of two groups of runs, which are named by their settings."""

    says: str
    ours: list[str]
    """Conditions such as ``merge.method=ties``, all of which the runs of this group meet."""
    theirs: list[str]
    gain: float | None = None
    traffic: float | None = None
    budget: str = "rounds"
    across_splits: bool = False

    @model_validator(mode="after")
    def _says_one_thing(self) -> "Expected":
        if (self.gain is None) == (self.traffic is None):
            raise ValueError("must have gain or traffic, and not both")
        return self

    @property
    def expectation(self) -> Expectation:
        return Expectation(
            says=self.says,
            gain=self.gain,
            traffic=self.traffic,
            budget=self.budget,
            across_splits=self.across_splits,
        )


class PublishedClaim(_Strict):
    """A published claim, as it is tried here."""

    title: str
    source: str
    """Who says so, and where."""
    notes: list[str] = []
    """In what this differs from what was published, and what the released code really does."""
    runs: Any
    """The runs, as a file of experiments has them."""
    expect: list[Expected]


def names() -> list[str]:
    """List the claims that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_claim(name: str) -> tuple[Path, PublishedClaim]:
    """Read a claim of the project by its name, or a file; returns its file, too.

    Raises:
        Misused: there is none of that name.
        UserError: the file is not what a claim is.
    """
    path = FOLDER / f"{name}.yaml" if name in names() else Path(name)
    if not path.is_file():
        raise Misused(
            f"CLAIM must be one of {', '.join(names())} or a YAML file, got {name}; choose one."
        )
    try:
        with explained(f"read the claim {path}"):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return path, PublishedClaim.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())
        raise UserError(f"{path} must be a YAML file, got {told}; mend it.") from None
    except ValidationError as error:
        raise UserError("\n".join(_problems(path, error))) from None


def _problems(path: Path, error: ValidationError) -> Iterator[str]:
    for each in error.errors():
        place = ".".join(map(str, each["loc"])) or "the file"
        told = each["msg"].removeprefix("Value error, ")
        yield f"{path}: {place}: {told[0].lower()}{told[1:]}; see configs/claims."


def judgements(claim: PublishedClaim, runs: Sequence[ReportRun]) -> list[Judgement]:
    """Judge each thing that a claim says by the runs that came to their end.

    Raises:
        Misused: a condition of the claim cannot be read.
    """
    ended = [run for run in runs if run.is_ended]
    metric = next((run.metric for run in ended if run.metric), "")
    floor = next((run.baseline.get(metric) for run in ended if metric in run.baseline), None)

    def group(texts: Sequence[str]) -> list[MeasuredRun]:
        return [run.measured for run in _meeting(ended, texts)]

    return [
        judge(each.expectation, group(each.ours), group(each.theirs), metric, ignoring_input=floor)
        for each in claim.expect
    ]


def _meeting(runs: Sequence[ReportRun], texts: Sequence[str]) -> list[ReportRun]:
    conditions: list[RunCondition] = [read_condition(text, "a group of a claim") for text in texts]
    return [run for run in runs if all(condition.holds(run.row) for condition in conditions)]
