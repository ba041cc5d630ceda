"""``print_config``: every setting with its value, its meaning and what it works with."""

from scaling_fl.config import defaults, describe
from scaling_fl.config.problems import field_at
from tests.unit.config.settings import PATHS


def test_print_config_shows_every_setting_with_its_documentation() -> None:
    text = describe({**defaults(), "num_rounds": 7}, colour=False)
    for path in PATHS:
        assert f" {path.split('.')[-1]} " in text
    assert "* num_rounds " in text
    assert "\033" not in text
    assert "\033" in describe(defaults(), colour=True)
    marked = [line for line in describe(defaults(), colour=False).splitlines()[1:] if "*" in line]
    assert marked == []


def test_every_setting_is_documented() -> None:
    texts = {path: field_at(path).description or "" for path in PATHS}
    assert [path for path, text in texts.items() if not text.endswith(".")] == []


def test_print_config_shows_every_tier_and_what_a_tier_may_have() -> None:
    tiers = [{"rank": 4}, {"download": {"density": 0.5}}]
    lines = describe({**defaults(), "tiers": tiers}, colour=False).splitlines()
    first, second = (lines.index(f"  tiers[{place}]:") for place in (0, 1))
    end = next(place for place, line in enumerate(lines) if line.startswith("  tier_ranks"))
    marked = [line.split("=")[0].split() for line in lines[first:second] if line[0:1] == "*"]
    assert marked == [["*", "rank"]]
    assert [line.split("=")[0].split() for line in lines[second:end] if line[0:1] == "*"] == [
        ["*", "density"]
    ]
    without = describe(defaults(), colour=False)
    assert "  tiers[]:" in without
    assert "Rank that its clients hold of the adapter's." in without
    assert describe({**defaults(), "tiers": [5]}, colour=False)
    assert describe({**defaults(), "tiers": "no"}, colour=False)
