"""The rules about privacy: what the guarantee does not survive is refused."""

from collections.abc import Callable, Mapping

from scaling_fl.config.conditions import listed
from scaling_fl.config.merges import MERGES
from scaling_fl.config.problems import Problem, Rule
from scaling_fl.config.schema import Config

Check = Callable[[Config], bool]

NOISE_SECRET = "SCALING_FL_NOISE_SECRET"
"""The environment's variable with the secret that noise and draws follow from."""
_SHORTEST_SECRET = 32


def _has_clip(config: Config) -> bool:
    return config.privacy.clip is not None


def _has_noise(config: Config) -> bool:
    return _has_clip(config) and config.privacy.is_noisy


def _has_groups(config: Config) -> bool:
    return _has_clip(config) and config.privacy.unit == "group"


def _rule(applies: Check, path: str, holds: Check, text: str, remedy: str) -> Rule:
    other = "privacy.unit" if applies is _has_groups else "privacy.clip"
    return Rule(path, (other,), lambda c: not applies(c) or holds(c), text, remedy)


def _some_upload_is_lossy(config: Config) -> bool:
    return any(tier.upload.is_lossy for tier in config.by_tier())


def _merge_is_private(config: Config) -> bool:
    row = MERGES.get(config.merge.method)
    return row is not None and row.private


_PRIVATE_MERGES = listed(name for name, row in MERGES.items() if row.private)
_PROTECT_CLIENTS = "protect clients (privacy.unit=client)"

PRIVACY: tuple[Rule, ...] = (
    _rule(
        _has_clip,
        "weighting",
        lambda c: c.weighting == "uniform",
        "must be uniform with privacy.clip, because the clip bounds a client's influence only when"
        " all clients count alike",
        "set weighting=uniform or drop privacy.clip",
    ),
    _rule(
        _has_clip,
        "merge.method",
        _merge_is_private,
        f"must be {_PRIVATE_MERGES} with privacy.clip, because any other merge tells more of the"
        " data than the noisy sum of clipped updates",
        "drop merge.method or privacy.clip",
    ),
    _rule(
        _has_noise,
        "data.labels",
        lambda c: c.task_name not in ("table", "images") or c.data.labels is not None,
        "must be given for a table or a folder with noise, because every checkpoint would tell the"
        " labels that the data was found to have",
        "list all labels, such as data.labels=no,yes, or drop the noise",
    ),
    _rule(
        _has_noise,
        "data.test_share",
        lambda c: c.data.test_share is None,
        "must be left alone with noise, because metrics of test data that is the clients' own are"
        " not covered by epsilon",
        "give test_path, of data that needs no protection, or drop the noise",
    ),
    _rule(
        _has_noise,
        "upload.error_feedback",
        lambda c: not c.upload.error_feedback,
        "must be False with noise, because epsilon holds only for clients that keep nothing from"
        " one round to another",
        "drop upload.error_feedback or the noise",
    ),
    _rule(
        _has_clip,
        "cohorts",
        lambda c: len({len(cohort) for cohort in c.listed_cohorts}) <= 1,
        "must have the same number of clients in every round with privacy.clip, because the sum is"
        " divided by a fixed number",
        "list equally many clients for every round",
    ),
    _rule(
        _has_noise,
        "min_clients",
        lambda c: c.min_clients == 1,
        "must be 1 with noise, because a run that ends for lack of clients tells whose data made"
        " them fail",
        "drop min_clients or the noise",
    ),
    _rule(
        _has_noise,
        "stop_when.seconds",
        lambda c: c.stop_when.seconds is None,
        "must be left alone with noise, because the number of rounds would tell how long they took,"
        " which depends on the data and is not covered by epsilon",
        "drop stop_when.seconds or the noise",
    ),
    _rule(
        _has_noise,
        "stop_when.metric",
        lambda c: not c.stop_when.is_of_training,
        "must be one of the test data with noise, because what clients report of their training is"
        " not covered by epsilon and not recorded",
        "take validation.loss or drop the noise",
    ),
    *(
        _rule(
            _has_groups,
            path,
            holds,
            "must be exact with privacy.unit=group, because a codec or a density changes a client's"
            " sum after the updates of its groups were clipped",
            f"drop the settings of {path}, or {_PROTECT_CLIENTS}",
        )
        for path, holds in (
            ("upload", lambda c: not c.upload.is_lossy or not _some_upload_is_lossy(c)),
            ("tiers[].upload", lambda c: c.upload.is_lossy or not _some_upload_is_lossy(c)),
        )
    ),
    _rule(
        _has_groups,
        "client_freeze",
        lambda c: not c.client_freeze,
        "must be False with privacy.unit=group, because updates of groups are clipped before"
        " coordinates are left out",
        f"drop client_freeze or {_PROTECT_CLIENTS}",
    ),
    _rule(
        _has_groups,
        "tiers[].rank",
        lambda c: all(tier.rank is None for tier in c.tiers),
        "must be left alone with privacy.unit=group, because updates of groups are clipped before"
        " coordinates are left out",
        f"drop the ranks or {_PROTECT_CLIENTS}",
    ),
    Rule(
        "privacy.groups_per_round",
        ("privacy.groups_per_client",),
        lambda c: not _has_groups(c) or c.privacy.groups_per_round <= c.privacy.groups_per_client,
        "must be at most privacy.groups_per_client",
        "lower privacy.groups_per_round or raise privacy.groups_per_client",
    ),
    Rule(
        "sampling",
        ("privacy.group_column",),
        lambda c: c.privacy.group_column is None or c.sampling == "poisson",
        "must be poisson with privacy.group_column, because clients have different numbers of"
        " groups, and each group must be drawn with one probability",
        "set sampling=poisson",
    ),
)


def secret_problems(config: Config, environ: Mapping[str, str]) -> list[Problem]:
    """Check that a run with noise has its secret, which is in no configuration and never shown."""
    length = len(environ.get(NOISE_SECRET, ""))
    if not _has_noise(config) or length >= _SHORTEST_SECRET:
        return []
    return [
        Problem(
            NOISE_SECRET,
            f"must have at least {_SHORTEST_SECRET} characters in the environment, because whoever"
            " can repeat the noise can subtract it",
            f"{length} with noise",
            "put the output of `openssl rand -hex 32` into .env, the same on all machines",
        )
    ]
