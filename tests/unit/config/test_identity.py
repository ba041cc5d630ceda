"""The identity of a run: the settings that decide what is computed."""

from scaling_fl.config import read_config
from scaling_fl.config.identity import NEWER
from tests.unit.config.settings import PACKAGED, merged, with_tiers


def test_the_identity_leaves_out_what_decides_nothing() -> None:
    base = read_config({**PACKAGED})
    same = read_config({
        **PACKAGED, "site_ids": [0, 1], "num_rounds": 9, "device": "cpu", "job_name": "x",
        "num_threads": 1, "partition": {"kind": "iid"}, "keep_last": 1,
        "stop_when": {"metric": "train.loss", "patience": 2, "min_gain": 0.1, "bytes": 9},
    })  # fmt: skip
    assert same.identity() == base.identity()
    for change in ({"seed": 1}, {"iid_split": False}, {"schedule": {"kind": "linear"}}):
        assert read_config({**PACKAGED, **change}).identity() != base.identity()


def test_the_number_of_rounds_matters_to_a_schedule_over_them() -> None:
    for schedule in ({"schedule": {"kind": "linear"}}, {"server": {"schedule": "cosine"}}):
        given = {**PACKAGED, **schedule}
        one, two = (read_config({**given, "num_rounds": n}).identity() for n in (3, 4))
        assert one != two


def test_tiers_are_part_of_the_identity() -> None:
    base = {**PACKAGED, **with_tiers({"rank": 2}, {})}
    changed = {**PACKAGED, **with_tiers({"rank": 4}, {})}
    assert read_config(base).identity() != read_config(changed).identity()
    assert read_config(read_config(base).model_dump(mode="json")) == read_config(base)


def test_newer_settings_are_part_of_the_identity_only_when_they_are_set() -> None:
    adam = {**PACKAGED, "server": {"optimiser": "adam"}}
    base = read_config(adam).identity()
    assert NEWER.keys() & base.keys() == set()
    changed = read_config(merged(adam, {"server": {"bias_correction": False}})).identity()
    assert changed == base | {"server.bias_correction": False}
    corrected = read_config({**adam, "scaffold": True, "num_clients": 2}).identity()
    assert corrected == base | {"scaffold": True}


def test_own_scales_are_part_of_the_identity_where_a_tier_has_one() -> None:
    tiers = {**PACKAGED, **with_tiers({"rank": 2}, {})}
    flexlora = {"merge": {"method": "flexlora"}}
    assert "tier_scale" not in read_config(tiers).identity()
    assert read_config(merged(tiers, flexlora)).identity()["tier_scale"] == "own"
    one_scale = merged(tiers, flexlora | {"tier_scale": "adapter"})
    assert "tier_scale" not in read_config(one_scale).identity()
    without_tiers = {**PACKAGED, "adapter": {"kind": "lora"}, **flexlora}
    assert "tier_scale" not in read_config(without_tiers).identity()
