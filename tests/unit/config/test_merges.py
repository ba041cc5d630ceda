"""The table of merges: settings of each merge, their rules and their identity follow from it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.config import read_config, read_single_settings
from scaling_fl.config.merge_row import Option
from scaling_fl.config.merges import MERGES, merge_options
from scaling_fl.config.sections import MergeSettings
from tests.unit.config.settings import PACKAGED, PRIVATE, only_problem

PARTIAL = {"upload": {"density": 0.5}}
OWN = "scaling_fl.methods.merging.means:mean"


def identity(**settings: Any) -> dict[str, Any]:
    found = read_config({**PACKAGED, **PARTIAL, **settings}).identity()
    return {name: value for name, value in found.items() if name.startswith("merge.")}


def test_the_section_has_the_options_of_all_merges_with_their_defaults() -> None:
    defaults = {name: option.default for name, (option, _) in merge_options().items()}
    assert MergeSettings().model_dump() == {"method": "mean", "on": "factors", **defaults}
    for method, row in MERGES.items():
        of_row = {**row.options, **row.of_payloads}
        options = {name: option.default for name, option in of_row.items()}
        options |= {"on": "factors"} if row.by_coordinates else {}
        assert MergeSettings(method=method).options == options
    assert MergeSettings(method=OWN).options == {}


def test_two_merges_share_an_option_and_never_a_name_alone(monkeypatch: Any) -> None:
    ties = MERGES["ties"]
    monkeypatch.setitem(MERGES, "twin", replace(ties, private=True))
    assert {"ties", "twin"} <= set(merge_options()["density"][1])
    other = Option(int, 1, "Another setting.")
    monkeypatch.setitem(MERGES, "twin", replace(ties, options={"density": other}))
    with pytest.raises(ValueError, match="different settings of one name: density"):
        merge_options()


def test_a_merge_is_named_by_the_table_or_is_a_function_of_a_module() -> None:
    for name in ("nosuch", "module.name", "a b:c", "a:b:c", ":c", "a:", "a..b:c", "../a:b"):
        problem = only_problem({"merge": {"method": name}})
        assert problem.startswith(
            f"merge.method must be one of {', '.join(MERGES)}, or my_module:my_merge, got {name!r};"
        )
    assert read_config({**PACKAGED, "merge": {"method": OWN}}).merge.method == OWN


def test_privacy_refuses_every_merge_that_is_not_private() -> None:
    private = {**PRIVATE, **PARTIAL, "privacy": {"clip": 1.0}, "adapter": {"kind": "lora"}}
    private["num_clients"] = 10
    for method in [*MERGES, OWN]:
        mapping = {**PACKAGED, **private, "merge": {"method": method}}
        if method in MERGES and MERGES[method].private:
            read_config(mapping)
        else:
            problem = only_problem(mapping)
            assert problem.startswith("merge.method must be mean")
            assert "with privacy.clip, because any other merge tells more" in problem


def test_options_count_in_the_identity_only_of_the_merge_that_is_chosen() -> None:
    assert identity(merge={"method": "ties"}) == {"merge.method": "ties", "merge.density": 0.2}
    by_tensor = identity(merge={"method": "ties", "trim_by": "tensor"})
    assert by_tensor == {"merge.method": "ties", "merge.density": 0.2, "merge.trim_by": "tensor"}
    on_products = identity(adapter={"kind": "lora"}, merge={"method": "median", "on": "products"})
    assert on_products == {"merge.method": "median", "merge.on": "products"}
    assert identity(merge={"method": OWN}) == {"merge.method": OWN}


def test_jobs_of_an_earlier_version_keep_their_identity() -> None:
    assert identity() == {"merge.divide_by": "all"}
    assert identity(merge={"method": "mean_of_senders"}) == {"merge.divide_by": "senders"}


def test_settings_that_an_earlier_version_has_stored_are_read() -> None:
    for old, method in (("all", "mean"), ("senders", "mean_of_senders")):
        assert read_single_settings({"merge": {"divide_by": old}}).merge.method == method
    today = {"merge": {"method": "ties", "density": 0.1}}
    assert read_single_settings(today).model_dump(exclude_defaults=True) == today
    assert read_single_settings({}).merge.method == "mean"


def test_the_jobs_of_an_earlier_version_say_how_they_merged() -> None:
    jobs = Path(__file__).parents[2] / "fixtures/jobs_of_e368924/checkpoints"
    stored = {
        job.name: json.loads((job / "round-000002/config.json").read_text())
        for job in jobs.iterdir()
    }
    methods = {job: read_single_settings(found).merge.method for job, found in stored.items()}
    assert methods == {"feedback": "mean_of_senders", "flasc": "mean"}


def test_an_older_name_on_the_command_line_is_refused_with_todays() -> None:
    for value, remedy in (
        ("senders", "use merge.method=mean_of_senders"),
        ("all", "use merge.method=mean"),
        ("nobody", "use merge.method"),
    ):
        assert only_problem({"merge": {"divide_by": value}}) == (
            f"merge.divide_by must be a known setting, got {value!r}; {remedy}."
        )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"adapter": {"kind": "dora"}}, "adapter.kind=dora; set adapter.kind=lora"),
        ({"adapter": {"kind": "none"}}, "set adapter.kind=lora or dora"),
        ({"adapter": {"kind": "lora", "freeze_a": True}}, "leave adapter.freeze_a alone"),
        ({"server": {"momentum": 0.9}}, "leave the section server alone"),
        ({"server": {"learning_rate": 0.5}}, "leave the section server alone"),
        ({"server": {"schedule": "cosine"}}, "got 'METHOD' with server={'schedule': 'cosine'}; "),
    ],
)
@pytest.mark.parametrize("method", ["exact", "stack"])
def test_what_goes_with_no_move_of_the_base(
    method: str, changes: dict[str, Any], problem: str
) -> None:
    mapping = {**PACKAGED, "adapter": {"kind": "lora"}, "merge": {"method": method}}
    found = only_problem({**mapping, **changes})
    assert found.startswith("merge.method must be another one")
    assert problem.replace("METHOD", method) in found


@pytest.mark.parametrize(
    "merge", [{"method": "flexlora"}, {"method": "median", "on": "products"}], ids=str
)
@pytest.mark.parametrize(
    "server",
    [{"optimiser": "adam"}, {"momentum": 0.9}, {"learning_rate": 0.5}, {"schedule": "cosine"}],
    ids=str,
)
def test_a_split_product_is_no_step_of_a_server_optimiser(
    merge: dict[str, Any], server: dict[str, Any]
) -> None:
    """Its factors are in the basis of an SVD; half the way there is half of no product."""
    mapping = {**PACKAGED, "adapter": {"kind": "lora"}, "merge": merge}
    assert read_config(mapping)
    assert only_problem(mapping | {"server": server}).startswith(
        "merge.method must keep the basis of the factors unless the server takes the merged update"
    )


@pytest.mark.parametrize(
    ("merge", "keeps_basis"),
    [
        ({"method": "exact"}, True),
        ({"method": "ties"}, True),
        ({"method": "stack"}, False),
        ({"method": "flexlora"}, False),
        ({"method": "ties", "on": "products"}, False),
    ],
    ids=str,
)
def test_what_was_held_back_is_of_a_basis_that_stays(
    merge: dict[str, Any], keeps_basis: bool
) -> None:
    upload = {"density": 0.5, "error_feedback": True}
    mapping = {**PACKAGED, "adapter": {"kind": "lora"}, "upload": upload, "merge": merge}
    if keeps_basis:
        assert read_config(mapping).upload.error_feedback
    else:
        assert "with upload.error_feedback" in only_problem(mapping)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"client_freeze": True, "download": {"density": 0.5}}, "drop client_freeze"),
        ({"tier_ranks": "largest", "tiers": [{"rank": 2}, {}]}, "drop tier_ranks"),
    ],
)
def test_what_goes_with_exact_and_not_with_fresh_adapters(
    changes: dict[str, Any], problem: str
) -> None:
    mapping = {**PACKAGED, "adapter": {"kind": "lora"}, **changes}
    read_config(mapping | {"merge": {"method": "exact"}})
    assert problem in only_problem(mapping | {"merge": {"method": "stack"}})
