"""Claims on file: what was published, the runs that try it here, and what they are to show."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from scaling_fl.commands.endings import Misused
from scaling_fl.commands.run_query import RunCondition, read_condition
from scaling_fl.config.base import Section
from scaling_fl.config.files import NotSettings, read_settings_file
from scaling_fl.core.errors import UserError
from scaling_fl.reporting.claims import Expectation, Judgement, judge
from scaling_fl.reporting.comparison import MeasuredRun
from scaling_fl.reporting.report.data import ReportRun
from scaling_fl.runtime.storage.base import explained

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "claims"


class PublishedClaim(Section):
    """A published claim, as it is tried here."""

    title: str
    source: str
    """Who says so, and where."""
    notes: list[str] = Field(default_factory=list)
    """In what this differs from what was published, and what the released code really does."""
    runs: Any
    """The runs, as a file of experiments has them."""
    expect: list[Expectation]


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
            return path, PublishedClaim.model_validate(read_settings_file(path))
    except NotSettings as error:
        place = f"{path}, line {error.line}," if error.line else str(path)
        raise UserError(f"{place} {error.rule}, got {error.got}; correct the file.") from None
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
        judge(each, group(each.ours), group(each.theirs), metric, ignoring_input=floor)
        for each in claim.expect
    ]


def _meeting(runs: Sequence[ReportRun], texts: Sequence[str]) -> list[ReportRun]:
    conditions: list[RunCondition] = [read_condition(text, "a group of a claim") for text in texts]
    return [run for run in runs if all(condition.holds(run.row) for condition in conditions)]
