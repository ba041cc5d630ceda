"""The configuration as a whole: every problem at once, before anything runs."""

import subprocess
import sys

import pytest
from sacred.config.custom_containers import ReadOnlyDict, ReadOnlyList

from scaling_fl.config import NAMED, Config, ConfigurationError, defaults, read_config
from tests.unit.config.settings import PACKAGED, merged, only_problem, problems, with_tiers


def test_the_error_text_counts_the_problems_and_gives_each_a_line() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_config({**PACKAGED, "momentum": 0.9, "optimiser": "adam", "batch_size": 0})
    assert str(caught.value).splitlines() == [
        "2 problems in the configuration:",
        "batch_size must be at least 1, got 0; give such a value or leave batch_size at 32.",
        "momentum must be left alone unless optimiser is sgd, got 0.9 with optimiser=adam;"
        " set optimiser=sgd, or drop momentum.",
    ]


def test_a_wrong_type_does_not_hide_a_broken_rule() -> None:
    found = problems(
        {**PACKAGED, "num_rounds": "five", "nosuch": 1, "momentum": 0.9, "optimiser": "adam"}
    )
    assert [problem.split()[0] for problem in found] == ["num_rounds", "nosuch", "momentum"]


def test_a_setting_that_is_wrong_itself_is_not_judged_by_the_rules_between_settings() -> None:
    assert only_problem({"optimiser": "adan", "momentum": 0.9}).startswith("optimiser must be one")


def test_sacred_containers_are_read_and_left_alone() -> None:
    given_dict = ReadOnlyDict(site_ids=ReadOnlyList([0, 1]), data=ReadOnlyDict(cache_dir=None))
    given_dict = ReadOnlyDict({**PACKAGED, **given_dict})
    assert read_config(given_dict).site_ids == (0, 1)
    assert isinstance(given_dict["data"], ReadOnlyDict)


def test_defaults_round_trip() -> None:
    config = read_config({**defaults(), **PACKAGED})
    assert config.model_dump(mode="json") == {**defaults(), **PACKAGED}
    assert read_config(config.model_dump(mode="json")) == config


def test_named_configurations_are_sound() -> None:
    assert [problems(merged(defaults(), settings)) for settings in NAMED.values()] == [[]]


def test_a_fraction_of_the_clients_is_rounded_half_up_and_never_to_none() -> None:
    config = Config(clients_per_round=0.5)
    assert [config.cohort_size(n) for n in (1, 2, 3, 5)] == [1, 1, 2, 3]
    assert Config(clients_per_round=0.01).cohort_size(10) == 1


def test_a_cohort_counts_the_most_that_are_listed() -> None:
    config = read_config({**PACKAGED, "num_clients": 5, "cohorts": [[0], [1, 2, 3]]})
    assert (config.cohort_size(5), config.listed_cohorts) == (3, ((0,), (1, 2, 3)))
    one = read_config({**PACKAGED, "num_clients": 5, "clients": [4, 2]})
    assert (one.cohort_size(5), one.listed_cohorts) == (2, ((4, 2),))
    assert read_config(PACKAGED).listed_cohorts == ()


def test_a_tier_has_the_settings_of_all_clients_but_for_its_own() -> None:
    config = read_config({
        **PACKAGED,
        **with_tiers(
            {"rank": 2, "download": {"density": 0.5}, "num_local_steps": 9},
            {"upload": {"codec": "nf4"}},
            download={"codec": "fp16", "density": 0.75, "density_decay": 0.9},
            upload={"density": 0.25},
        ),
    })  # fmt: skip
    small, other = config.by_tier()
    assert (small.adapter.rank, other.adapter.rank, config.adapter.rank) == (2, 8, 8)
    assert (small.num_local_steps, other.num_local_steps) == (9, None)
    assert (small.download.codec, small.download.density) == ("fp16", 0.5)
    assert (other.download.codec, other.download.density) == ("fp16", 0.75)
    assert small.download.density_decay == other.download.density_decay == 0.9
    assert (small.upload.codec, small.upload.density) == ("none", 0.25)
    assert (other.upload.codec, other.upload.density) == ("nf4", 0.25)
    plain = read_config(PACKAGED)
    assert plain.by_tier() == [plain]


def test_the_configuration_loads_without_heavy_libraries() -> None:
    heavy = ["torch", "transformers", "datasets", "pandas", "matplotlib", "pymongo", "numpy"]
    code = f"import sys, scaling_fl.config; print(*[m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""
