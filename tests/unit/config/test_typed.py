"""What is typed after ``with``: values, named configurations and files, and each way to mistype."""

from pathlib import Path
from typing import Any

import pytest

from scaling_fl.config import NAMED, ConfigurationError, defaults, read_config
from scaling_fl.config.typed import merged, read_typed


def said(*texts: str, folder: Path = Path("none")) -> list[str]:
    return [str(problem) for problem in read_typed(texts, [folder]).problems]


def test_values_overrule_files_which_overrule_those_before_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\nadapter:\n  kind: lora\n  rank: 2\nnum_rounds: 9\n")
    (tmp_path / "b.json").write_text('{"seed": 2, "adapter": {"alpha": 3}}')
    texts = ["num_rounds=4", "demo", "a.yaml", "b.json", "adapter.rank=8", "num_rounds=5"]
    typed = read_typed(texts, [tmp_path])
    assert typed.problems == []
    assert typed.named == ["demo", "a.yaml", "b.json"]
    assert typed.updates == {"adapter": {"rank": 8}, "num_rounds": 5}
    own = {"seed": 2, "adapter": {"kind": "lora", "rank": 8, "alpha": 3}, "num_rounds": 5}
    assert typed.settings == merged(NAMED["demo"], own)


def test_a_file_is_found_in_the_first_folder_that_has_it(tmp_path: Path) -> None:
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(f"author: {name}\n")
    (tmp_path / "theirs" / "b.yaml").write_text("author: b\n")
    folders = [tmp_path / "mine", tmp_path / "theirs"]
    assert read_typed(["a.yaml"], folders).settings == {"author": "mine"}
    assert read_typed(["b.yaml"], folders).settings == {"author": "b"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("num_rounds=3", 3),
        ("learning_rate=1e-3", 1e-3),
        ("model=a/b", "a/b"),
        ("model=C:\\new", "C:\\new"),
        ("site_ids=[0,1]", [0, 1]),
        ("clients=(1,2)", [1, 2]),
        ("site_ids=[0,1", "[0,1"),
        ("seed=1j", "1j"),
        ("site_ids={1,2}", "{1,2}"),
        ("tiers=[{1:2}]", [{"1": 2}]),
        ("job_name=20261121_101010", "20261121_101010"),
        ("job_name='7'", "7"),
        ("job_name=None", None),
        ("author=O'Hara", "O'Hara"),
        ("author='O\\'Hara'", "O'Hara"),
        ("author='O'Hara'", "O'Hara"),
        ("train_path=", ""),
        ("train_path=a=b", "a=b"),
        ("seed=" + "[" * 5000, "[" * 5000),
    ],
)
def test_a_value_is_a_literal_or_text(text: str, value: Any) -> None:
    typed = read_typed([text], [])
    assert (typed.problems, list(typed.settings.values())) == ([], [value])


def test_a_file_of_settings_is_read_as_it_is_meant(tmp_path: Path) -> None:
    text = "job_name: 20261121_101010\nauthor: 2026-11-21\nadapter.rank: 4\nadapter: {kind: lora}\n"
    (tmp_path / "a.yaml").write_text(text)
    assert read_typed(["a.yaml"], [tmp_path]).settings == {
        "job_name": "20261121_101010",
        "author": "2026-11-21",
        "adapter": {"rank": 4, "kind": "lora"},
    }


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.yaml", "a: [1,\n b", "a.yaml, line 2, must be YAML, got expected ',' or ']'"),
        ("a.yaml", "seed: 1\nseed: 2\n", "a.yaml, line 2, must be YAML, got seed twice;"),
        ("a.yaml", "[1]: 2", "a.yaml, line 1, must be YAML, got found unhashable key;"),
        ("a.yaml", "- 1\n", "a.yaml must hold settings such as num_rounds: 3, got a list;"),
        ("a.yaml", "", "a.yaml must hold settings such as num_rounds: 3, got nothing;"),
        ("a.yaml", "a: !!python/object:os.system {}", "a.yaml, line 1, must be YAML, got could"),
        ("a.yaml", b"\xff\xfe", "a.yaml must be text in UTF-8, got other bytes;"),
        ("a.json", "{'a': 1}", "a.json, line 1, must be JSON, got Expecting property name"),
        ("a.pickle", "", "a.pickle must be a .yaml or .json file, got .pickle;"),
    ],
)
def test_what_is_wrong_about_a_file_is_one_sentence(
    tmp_path: Path, name: str, content: str | bytes, expected: str
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    (problem,) = said(name, folder=tmp_path)
    assert problem.startswith(expected)


def test_a_name_that_is_none_is_told_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "flasc_4.yaml").touch()
    rule = "must be a named configuration or a file, got"
    table = {
        "dmeo": f"dmeo {rule} 'dmeo'; use demo.",
        "flasc_4": f"flasc_4 {rule} 'flasc_4'; use configs/flasc_4.yaml.",
        "xyz": f"xyz {rule} 'xyz'; use demo, a file, or key=value.",
        "configs/flasc4.yaml": f"configs/flasc4.yaml must be an existing file, got none in "
        f"{tmp_path}; use configs/flasc_4.yaml.",
        "num_rounds": "num_rounds must be typed with = and its value, got 'num_rounds'; type "
        "num_rounds=VALUE.",
        "x" * 300: f"{'x' * 300} {rule} '{'x' * 300}'; use demo, a file, or key=value.",
        "=3": "'=3' must have the name of a setting before =, got none; type it as num_rounds=3.",
        "adapter..rank=3": "'adapter..rank=3' must have the name of a setting before =, got none; "
        "type it as num_rounds=3.",
        "num_rounds=3,": "num_rounds must be typed without a comma, got '3,'; type num_rounds=3 "
        "and a space.",
    }
    assert {text: said(text, folder=tmp_path) for text in table} == {
        text: [problem] for text, problem in table.items()
    }


@pytest.mark.parametrize("words", [["seed", "=", "3"], ["seed=", "3"], ["seed", "=3"]])
def test_spaces_around_the_equals_sign_are_told_once(words: list[str]) -> None:
    expected = "seed must be typed without spaces around =, got spaces; type seed=3."
    if words == ["seed=", "3"]:  # an empty value is not without meaning
        assert len(said(*words)) == 1
    else:
        assert said(*words, "num_rounds=4") == [expected]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"learning_rate": "1e-3"}, "write learning_rate: 1.0e-3 in a file"),
        ({"learning_rate": "2E5"}, "write learning_rate: 2.0e+5 in a file"),
        ({"num_rounds": "3"}, "write num_rounds: 3 in a file"),
        ({"iid_split": "false"}, "iid_split=False on the command line"),
        ({"keep_last": "null"}, "keep_last=None on the command line"),
        ({"adapter": "lora"}, "use adapter.kind=lora"),
        ({"seed": 2**32}, "seed must be at most 4294967295, got 4294967296"),
        ({"num_clients": 10**50}, "num_clients must be at most 1000000000000, got 1000"),
    ],
)
def test_a_mistyped_value_is_told_with_what_was_meant(
    settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        read_config(merged(defaults(), {"task_name": "20newsgroups"} | settings))
    assert len(error.value.problems) == 1
    assert expected in str(error.value)
