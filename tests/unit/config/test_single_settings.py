"""One setting at a time: its type, its range, its name, and no credentials."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.config import defaults, read_config
from scaling_fl.config.base import leaves
from tests.unit.config.settings import (
    PACKAGED,
    PATHS,
    SECTIONS,
    merged,
    nested,
    only_problem,
    problems,
    with_tiers,
)

NUMBERS = [path for path, value in leaves(defaults()) if type(value) in (int, float)]
COUNTS = [path for path, value in leaves(defaults()) if type(value) is int]


def accepted(paths: list[str], *values: Any) -> list[tuple[str, Any]]:
    """List the settings that take a value which they should refuse."""
    return [
        (path, value)
        for path in paths
        for value in values
        if not any(
            problem.startswith((f"{path} must", f"{path}[", f"{path}."))
            for problem in problems({**PACKAGED, **nested(path, value)})
        )
    ]


def test_every_setting_refuses_a_value_of_no_known_type() -> None:
    assert accepted([*PATHS, *SECTIONS], {"deeper": 1}, [[]], object(), 1j) == []


def test_numbers_are_finite() -> None:
    assert accepted(NUMBERS, float("nan"), float("inf"), float("-inf")) == []


@given(path=st.sampled_from(NUMBERS), wrong=st.booleans() | st.text() | st.integers().map(str))
def test_truth_values_and_text_are_not_numbers(path: str, wrong: Any) -> None:
    assert accepted([path], wrong) == []


@given(path=st.sampled_from(COUNTS), wrong=st.floats() | st.integers(max_value=-1))
def test_fractions_and_negative_numbers_are_not_counts(path: str, wrong: Any) -> None:
    assert accepted([path], wrong) == []


@given(
    paths=st.lists(st.sampled_from(PATHS), min_size=2, max_size=6, unique=True),
    wrong=st.sampled_from([{"a": 1}, 1j]),
)
def test_all_wrong_settings_are_reported_together(paths: list[str], wrong: Any) -> None:
    found = problems(merged(PACKAGED, *(nested(path, wrong) for path in paths)))
    for path in paths:
        assert any(problem.startswith((f"{path} ", f"{path}.", f"{path}[")) for problem in found)


SUGGESTIONS: list[tuple[dict[str, Any], str]] = [
    ({"num_round": 3}, "use num_rounds."),
    ({"adaptor": {"rank": 4}}, "use adapter.rank."),
    ({"srver": {"beta1": 0.9, "beta2": 0.9}}, "use server."),
    ({"schedule": {"knd": "linear"}}, "use schedule.kind."),
    ({"alpha": 0.1}, "use adapter.alpha or partition.alpha."),
    ({"optimizer": "adam"}, "use optimiser."),
    ({"xyzzy": 1}, "see print_config for every setting."),
    ({"merge": {"method": "tis"}}, "use merge.method=ties."),
]


def test_an_unknown_setting_is_refused_with_the_nearest_known_one() -> None:
    for mapping, suggestion in SUGGESTIONS:
        assert only_problem(mapping).endswith(suggestion)


CREDENTIALS = ("s3://me:hunter2@bucket/x", "https://h/x?a=1&X-Sig=hunter2", "s3://me:hun/ter2@b")


def test_credentials_are_refused_and_not_repeated() -> None:
    for path in ("train_path", "checkpoints_dir", "model", "data.cache_dir"):
        for url in CREDENTIALS:
            found = problems({**PACKAGED, **nested(path, url)})
            assert any(problem.startswith(f"{path} must") for problem in found)
            assert not any("ter2" in problem for problem in found)


def test_an_unknown_password_is_not_repeated() -> None:
    assert "hunter2" not in only_problem({"password": "hunter2"})


def test_a_job_name_is_a_plain_name() -> None:
    for name in ("../up", "a/b", "", ".", "..", "a b", "ä", "-x", 1.5, True, "a\n"):
        assert only_problem({"job_name": name}).startswith("job_name must be a plain name")


def test_a_job_name_that_the_command_line_made_a_number_is_taken_as_text() -> None:
    config = read_config({**PACKAGED, "job_name": 20261121, "author": 7})
    assert (config.job_name, config.author) == ("20261121", "7")


def test_names_may_be_given_as_a_list_or_with_commas() -> None:
    for given_as in ("query,value", ["query", "value"]):
        adapter = {"kind": "lora", "targets": given_as}
        assert read_config({**PACKAGED, "adapter": adapter}).adapter.targets == ("query", "value")
    assert only_problem({"adapter": {"kind": "lora", "targets": "query,"}}).startswith(
        "adapter.targets[1] must"
    )


WRONG_TIERS: list[tuple[dict[str, Any], str]] = [
    (
        {"download": {"density": 1.5}},
        "tiers[1].download.density must be at most 1, got 1.5; give such a value or leave it out.",
    ),
    (
        {"upload": {"codec": "nf5"}},
        "tiers[1].upload.codec must be one of none, fp16, bf16, int8, nf4, nf4_double, or "
        "my_module:my_codec, got 'nf5'; use tiers[1].upload.codec=nf4.",
    ),
    (
        {"rank": 0},
        "tiers[1].rank must be at least 1, got 0; give such a value or leave it out.",
    ),
    (
        {"clients": [0, -1]},
        "tiers[1].clients[1] must be at least 0, got -1; give such a value or leave it out.",
    ),
    (
        {"share": "half"},
        "tiers[1].share must be a number or None, got 'half'; give such a value or leave it out.",
    ),
    (
        {"download": {"densty": 0.5}},
        "tiers[1].download.densty must be a known setting, got 0.5; use tiers[].download.density.",
    ),
    (
        {"ranks": 4},
        "tiers[1].ranks must be a known setting, got 4; use tiers[].rank.",
    ),
]


def test_a_wrong_setting_of_a_tier_is_told_with_its_place() -> None:
    found = [problems({**PACKAGED, **with_tiers({}, tier)}) for tier, _ in WRONG_TIERS]
    assert found == [[expected] for _, expected in WRONG_TIERS]
