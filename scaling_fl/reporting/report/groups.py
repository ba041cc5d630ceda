"""Groups of runs that differ in nothing but seeds, and sets of groups that were measured alike."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scaling_fl.core.json_text import json_text
from scaling_fl.reporting.comparison import unlike
from scaling_fl.reporting.report.data import ReportRun
from scaling_fl.reporting.run_rows import NAMES_AND_PLACES, differing, shown

USUAL = "as most others"
"""The label of a group whose settings are those of most groups, one by one."""
SEEDS = ("seed", "data_seed")
_CHOSEN = {"owners of the training data"}
"""Parts of a measure that ``data_seed`` chooses."""
_DRAWN = {"training data", "test data"}
"""Those that it chooses when only some of the examples are used."""
NO_EFFECT = {"device", "num_threads", "save_every", "keep_last", "val_batch_size"}
"""Settings that decide where and how fast, and not what is computed."""


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """Runs of the same settings, each with other seeds."""

    label: str
    """In what it differs from the other groups of its set."""
    runs: Sequence[ReportRun]
    repeated: Sequence[ReportRun] = ()
    """Runs that repeat the seeds of one of ``runs``, and are not counted twice."""

    @property
    def is_ended(self) -> bool:
        return self.runs[0].is_ended


@dataclass(frozen=True, kw_only=True)
class AlikeSet:
    """Groups that may be compared, because their runs were measured alike."""

    groups: Sequence[RunGroup]
    unlike_first: Sequence[str]
    """Why it may not be compared with the first set."""

    @property
    def runs(self) -> list[ReportRun]:
        return [run for group in self.groups for run in group.runs]

    @property
    def ended(self) -> list[RunGroup]:
        return [group for group in self.groups if group.is_ended]

    @property
    def metric(self) -> str | None:
        return self.groups[0].runs[0].metric


def settings_of(run: ReportRun) -> dict[str, Any]:
    """Return the settings that decide what a run computes, its seeds aside."""
    settings = dict(run.row.settings)
    # By default there is a client for each site, and otherwise it does not matter where they are.
    sites = settings.pop("site_ids", None) or []
    settings["num_clients"] = settings.get("num_clients") or len(sites) or None
    left_out = {*SEEDS, *NAMES_AND_PLACES, *NO_EFFECT}
    return {
        name: value
        for name, value in settings.items()
        if name not in left_out and not name.startswith("tracking.")
    }


def group_runs(runs: Sequence[ReportRun]) -> list[RunGroup]:
    """Put runs that differ only in seeds together, in the order of the runs.

    Runs that did not come to their end are groups of their own, which are not compared.
    """
    found: dict[str, list[ReportRun]] = {}
    for run in runs:
        found.setdefault(_key(run), []).append(run)
    return [_group("", members) for members in found.values()]


def _group(label: str, runs: Sequence[ReportRun]) -> RunGroup:
    by_seeds = {run.measured.seeds: run for run in runs}
    counted = sorted(by_seeds.values(), key=lambda run: str(run.measured.seeds))
    repeated = [run for run in runs if run not in counted]
    return RunGroup(label=label, runs=counted, repeated=repeated)


def _key(run: ReportRun) -> str:
    # Where no seed chooses the examples, other ones are another measurement.
    measure = run.measured.measure
    data = None if _is_drawn(run) else [str(measure.get(name)) for name in sorted(_DRAWN)]
    status = None if run.is_ended else [run.row.run, run.row.status]
    return json_text([settings_of(run), data, status, run.metric], sort_keys=True, default=str)


def _labelled(groups: Sequence[RunGroup]) -> list[RunGroup]:
    """Label groups by the settings in which they differ from each other."""
    settings = [settings_of(group.runs[0]) for group in groups]
    told = _told(settings)
    labels = []
    for group, found in zip(groups, settings, strict=True):
        run = group.runs[0]
        label = " ".join(
            f"{name}={shown(found.get(name))}"
            for name, common in told.items()
            if repr(found.get(name)) != common
        )
        alone = "all runs" if len(group.runs) > 1 else str(run.row.job or run.row.run)
        label = label or (USUAL if len(groups) > 1 else alone)
        labels.append(label + ("" if run.is_ended else f" [{run.row.status}]"))
    return [
        # Two that died may be of the same settings.
        replace(g, label=label if labels.count(label) == 1 else f"{label} ({g.runs[0].row.run})")
        for g, label in zip(groups, labels, strict=True)
    ]


def _told(settings: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """Choose the settings that labels name, and of each the value that is not worth telling.

    Where more than two settings differ, one that is the same in all groups but a few is told of
    those alone. None: each value is told.
    """
    names = differing(settings)
    told: dict[str, str | None] = dict.fromkeys(names)
    if len(names) > 2:
        for name in names:
            counts = Counter(repr(found.get(name)) for found in settings).most_common()
            if counts[0][1] > 1 and counts[1][1] == 1:
                told[name] = counts[0][0]
    return told


def alike_sets(groups: Sequence[RunGroup]) -> list[AlikeSet]:
    """Put groups together that may be compared, in the order of the groups, and label them."""
    found: list[list[RunGroup]] = []
    for group in groups:
        for other in found:
            if not differences_of(group, other[0]):
                other.append(group)
                break
        else:
            found.append([group])
    return [
        AlikeSet(
            groups=_labelled(each),
            unlike_first=differences_of(found[0][0], each[0]) if number else [],
        )
        for number, each in enumerate(found)
    ]


def differences_of(one: RunGroup, other: RunGroup) -> list[str]:
    """Say in what two groups were measured otherwise, by the runs that share their seeds."""
    mates = {run.measured.seeds: run for run in other.runs}
    pairs = [(run, mates[run.measured.seeds]) for run in one.runs if run.measured.seeds in mates]
    if pairs:
        reasons = [text for pair in pairs for text in unlike([run.measured for run in pair])]
        return list(dict.fromkeys(reasons))
    # Of other seeds, what seeds choose differs, and is no reason.
    first = [group.runs[0] for group in (one, other)]
    chosen = _CHOSEN | (_DRAWN if any(map(_is_drawn, first)) else set())
    measures = [
        {name: value for name, value in run.measured.measure.items() if name not in chosen}
        for run in first
    ]
    return unlike([replace(r.measured, measure=m) for r, m in zip(first, measures, strict=True)])


def _is_drawn(run: ReportRun) -> bool:
    """Say whether data_seed chooses which examples there are."""
    names = ("data.max_train_examples", "data.max_test_examples", "data.test_share")
    return any(run.row.settings.get(name) is not None for name in names)
