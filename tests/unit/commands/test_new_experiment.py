"""A project from the template: its README says what its settings are, and answers are checked."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaling_fl.commands.new_experiment import LEFT_OUT, TEMPLATE, main, questions, write_project
from scaling_fl.commands.new_experiment import ProjectRequest as Asked
from scaling_fl.config import Config, read_config
from scaling_fl.config.base import leaves

SETTING_OF = {
    name: path
    for name, details in questions().items()
    for path in re.findall(r"refusal\('([\w.]+)'\)", details.get("validator", ""))
}
"""Question -> the setting whose range decides about the answer."""
OTHERS: dict[str, Any] = {
    **{"train_path": "rows.jsonl", "base_model": "tiny", "bf16": False, "peft_lora_r": 3},
    **{"peft_lora_alpha": 7.5, "peft_use_dora": False, "peft_targets": "q_proj,v_proj"},
    **{"seq_length": 99, "per_device_train_batch_size": 5, "accumulation_steps": 4},
    **{"max_steps": 11, "max_lr": 3e-4, "min_lr": 2e-7, "optimizer": "adam", "num_clients": 14},
    **{"fraction_fit": 0.5, "num_server_rounds": 12, "task_name": "generalnlp"},
    **{"full_name": "Ada: L.", "project_name": "Sums", "license": "MIT"},
    "quantization": 16,
    "project_short_description": "Sums, learned by many",
}
"""An answer to every question that is not its default."""


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(folder: str = "sums", **answers: Any) -> Path:
    data = [f"{name}={value}" for name, value in answers.items()]
    write_project(Asked(folder=Path(folder), data=data, defaults=True))
    return Path(folder)


def settings(folder: Path) -> dict[str, Any]:
    return dict(leaves(yaml.safe_load((folder / "config.yaml").read_text())))


def stated(folder: Path) -> dict[str, str]:
    """Read the table of the README: setting -> what stands there."""
    rows = re.findall(
        r"^\| [^|]*?`?([\w.]+)`?\)? \| (.*) \|$", (folder / "README.md").read_text(), re.M
    )
    return {path: text.strip("`") for path, text in rows if path not in ("setting", "---")}


@pytest.mark.parametrize("answers", [{}, OTHERS], ids=["defaults", "others"])
def test_the_readme_states_the_settings_that_the_file_has(answers: dict[str, Any]) -> None:
    folder = write(**answers)
    given, shown = settings(folder), stated(folder)
    for path, text in shown.items():
        value = given[path]
        assert text == (", ".join(value) if isinstance(value, list) else str(value)), path
    untold = {"task_name", "train_path", "data.test_share", "weighting", "author"}
    assert (
        given.keys() - shown.keys() == (untold | {"schedule.kind", "val_batch_size"}) & given.keys()
    )
    text = (folder / "README.md").read_text()
    assert str(given["train_path"]) in text
    assert f"task_name={given['task_name']}" in text
    assert f"with {given['num_clients']} clients" in text


def test_the_largest_learning_rate_is_that_of_the_first_rounds() -> None:
    given = settings(write(max_lr=3e-4, min_lr=2e-7))
    assert given["learning_rate"] == 3e-4 > given["schedule.final_learning_rate"] == 2e-7
    text = Path("sums/README.md").read_text()
    assert re.search(r"largest learning rate.*\| 0\.0003 \|", text)
    assert re.search(r"smallest learning rate.*\| 2e-07 \|", text)


def test_every_answer_becomes_the_setting_whose_range_it_has() -> None:
    before, after = settings(write("a")), settings(write("b", **OTHERS))
    assert OTHERS.keys() == questions().keys()
    for name, path in SETTING_OF.items():
        answer = OTHERS[name].split(",") if path == "adapter.targets" else OTHERS[name]
        assert after[path] == answer != before[path]
    assert (before["adapter.kind"], after["adapter.kind"]) == ("dora", "lora")
    assert (before["precision"], after["precision"]) == ("bf16", "fp32")
    assert after["task_name"] == "generalnlp"
    assert after["author"] == "Ada: L."
    words = Path("b/README.md").read_text()
    assert all(OTHERS[name] in words for name in ("project_name", "license", "full_name"))
    assert OTHERS["project_short_description"] in words


@pytest.mark.parametrize("task", ["generalnlp", "medical", "finance", "code", "instruction"])
def test_the_settings_and_the_examples_can_be_run(task: str) -> None:
    folder = write(task_name=task)
    config = read_config(yaml.safe_load((folder / "config.yaml").read_text()))
    assert isinstance(config, Config)
    assert config.train_path == "sums/examples.jsonl"
    lines = Path(config.train_path).read_text().splitlines()
    assert len(lines) == 100
    rows = [yaml.safe_load(line) for line in lines]
    asked = "input" if task == "medical" else "instruction"
    assert all(row[asked].startswith("How many") and row["output"] for row in rows)


def test_the_defaults_are_those_of_the_recipe_where_they_run_everywhere() -> None:
    recipe = Path(__file__).parents[3] / "configs" / "medical.yaml"
    published = dict(leaves(yaml.safe_load(recipe.read_text())))
    given = settings(write())
    # The recipe needs a GPU, trains on the same rows in every round, and has no data.
    assert {path for path in given if given[path] != published.get(path)} == {
        "train_path",
        "optimiser",
    }
    assert published.keys() - given.keys() == {"data_order"}


def test_the_defaults_are_those_of_the_seed() -> None:
    defaults = {name: details["default"] for name, details in questions().items()}
    assert defaults["base_model"] == "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    numbers = ("peft_lora_alpha", "peft_lora_r", "per_device_train_batch_size", "max_steps")
    assert [defaults[name] for name in numbers] == [64, 16, 8, 10]
    rates = ("max_lr", "min_lr", "fraction_fit", "num_server_rounds")
    assert [float(defaults[name]) for name in rates] == [5e-5, 5e-6, 0.2, 10]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("peft_lora_r=0", "peft_lora_r must be at least 1, got 0; give such a value"),
        ("peft_lora_r=two", "peft_lora_r must be a whole number, got 'two'; give such a value"),
        ("bf16=perhaps", "bf16 must be true or false, got 'perhaps'; give such a value"),
        ("optimizer=lion", "optimizer must be one of sgd, adam, adamw"),
        ("fraction_fit=1.5", "fraction_fit must be a count (1, 2, ...) or a fraction"),
        ("min_lr=1", "min_lr must be at most max_lr=5e-05, got 1.0; exchange the two"),
        ("task_name=agnews", "task_name must be generalnlp or medical or finance"),
        ("lora_r=8", "--data must name a question, got lora_r; use peft_lora_r"),
        ("num_gpus=2", "got num_gpus; leave it out, because set site_ids in config.yaml"),
        ("peft_lora_r", "--data must be followed by NAME=VALUE, got peft_lora_r; see --help"),
    ],
)
def test_a_wrong_answer_is_one_sentence_and_writes_nothing(
    answer: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main({"folder": Path("sums"), "data": [answer], "defaults": True}) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert said in told
    assert told.startswith("Error: ")
    assert list(Path().iterdir()) == []


def test_what_the_template_of_the_seed_has_and_this_has_not_says_why() -> None:
    assert LEFT_OUT.keys().isdisjoint(questions())
    seed = {"directory_name", "project_slug", "email", "flower_username", "version", "tf32"}
    assert LEFT_OUT.keys() == seed | {"lr_scheduler_type", "num_cpus", "num_gpus", "gpu_spec"}


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_is_there_is_left_alone(is_folder: bool, capsys: pytest.CaptureFixture[str]) -> None:
    kept = Path("sums/notes.txt" if is_folder else "sums")
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    assert main({"folder": Path("sums"), "data": [], "defaults": True}) == 2
    assert capsys.readouterr().err.startswith("Error: FOLDER must be new or empty, got sums, a f")
    assert kept.read_text() == "mine"


def test_an_empty_folder_is_filled_and_one_inside_a_new_one_is_made() -> None:
    Path("empty").mkdir()
    assert {file.name for file in write("empty").iterdir()} == {
        "config.yaml", "README.md", "DATA.md", "examples.jsonl",
    }  # fmt: skip
    folder = write("new/inner")
    assert settings(folder)["train_path"] == "new/inner/examples.jsonl"
    assert (folder / "README.md").read_text().startswith("# inner\n")


def test_without_a_terminal_all_answers_must_be_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert main({"folder": Path("sums"), "data": [], "defaults": False}) == 2
    assert "questions must be answered in a terminal" in " ".join(capsys.readouterr().err.split())


def test_without_copier_the_command_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scaling_fl.commands.new_experiment.find_spec", lambda name: None)
    assert main({"folder": Path("sums"), "data": [], "defaults": True}) == 1
    assert "pip install -c constraints.txt -e '.[template]'" in capsys.readouterr().err


def test_the_template_is_a_part_of_the_package() -> None:
    files = {str(file.relative_to(TEMPLATE)) for file in TEMPLATE.rglob("*") if file.is_file()}
    assert files == {
        "copier.yml",
        *(
            f"project/{name}.jinja"
            for name in ("config.yaml", "README.md", "DATA.md", "examples.jsonl")
        ),
    }
