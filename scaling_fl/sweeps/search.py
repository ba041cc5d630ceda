"""A search: which point a sweep tries next, and whether a run is worth its next rounds.

Optuna chooses, by what the runs before have come to; nothing of it is kept. So a search that was
interrupted goes on from the records of its runs, and a run that is begun again is not a point that
is tried twice. The sampler is tree-structured Parzen estimators (Bergstra et al., NeurIPS 2011),
and runs are pruned by the median of the others after the same round (Golovin et al., KDD 2017).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from scaling_fl.core.errors import UserError
from scaling_fl.core.seeding import derive
from scaling_fl.sweeps.search_settings import Range, Scalar, SearchSettings

if TYPE_CHECKING:
    import optuna

Point = dict[str, Scalar]
"""The path of each setting that is searched, and its value."""
Outcome = Literal["running", "done", "pruned", "failed"]
NUM_RANDOM = 5
"""So many points are drawn at random, and no run is pruned before so many have ended."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A point that is tried or has been, and what it has come to."""

    point: Mapping[str, Scalar]
    outcome: Outcome
    values: Mapping[int, float] = field(default_factory=dict)
    """Evaluated round -> finite value of the metric; at least one where it is done."""


def check_search() -> None:
    """Check that Optuna is there.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("optuna") is None:
        raise UserError(
            "search must have the package optuna, which is not installed; run "
            "`pip install -c constraints.txt -e '.[search]'` in the folder of the project."
        )


def next_point(
    search: SearchSettings, trials: Sequence[Trial], *, is_less_better: bool, again: int = 0
) -> Point:
    """Choose the point to try after ``trials``: a function of these, and of nothing else.

    ``again`` counts how often the point that was chosen had been tried before.
    """
    import optuna

    sampler = optuna.samplers.TPESampler(
        seed=derive(search.seed, "search", len(trials), again) % 2**32,
        n_startup_trials=NUM_RANDOM + again,
        constant_liar=True,  # points that still run keep others away
    )
    study = _study(search, trials, is_less_better=is_less_better, sampler=sampler)
    return dict(study.ask(_distributions(search)).params)


def is_hopeless(
    search: SearchSettings, trials: Sequence[Trial], number: int, *, is_less_better: bool
) -> bool:
    """Say whether the running trial of a number is to be pruned after its last evaluation."""
    import optuna

    if not search.prune or not trials[number].values:
        return False
    pruner = optuna.pruners.MedianPruner(n_startup_trials=NUM_RANDOM)
    study = _study(search, trials, is_less_better=is_less_better, pruner=pruner)
    return bool(study.pruner.prune(study, study.get_trials(deepcopy=False)[number]))


def _study(
    search: SearchSettings, trials: Sequence[Trial], *, is_less_better: bool, **chosen_by: Any
) -> "optuna.Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize" if is_less_better else "maximize", **chosen_by)
    study.add_trials([_as_optuna(search, trial) for trial in trials])
    return study


def _as_optuna(search: SearchSettings, trial: Trial) -> "optuna.trial.FrozenTrial":
    import optuna

    states = {
        "running": optuna.trial.TrialState.RUNNING,
        "done": optuna.trial.TrialState.COMPLETE,
        "pruned": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }
    is_done = trial.outcome == "done"
    return optuna.trial.create_trial(
        state=states[trial.outcome],
        value=trial.values[max(trial.values)] if is_done else None,
        params=dict(trial.point),
        distributions=_distributions(search),
        intermediate_values=dict(trial.values),
    )


def _distributions(search: SearchSettings) -> dict[str, Any]:
    import optuna

    def of(values: Range | list[Scalar]) -> Any:
        if isinstance(values, list):
            return optuna.distributions.CategoricalDistribution(values)
        if isinstance(values.low, int) and isinstance(values.high, int):
            return optuna.distributions.IntDistribution(values.low, values.high, log=values.log)
        return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)

    return {path: of(values) for path, values in search.ranges.items()}
