"""The command line of training and planning: what is refused, all at once, and what is meant."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from sacred.commandline_options import CLIOption
from sacred.experiment import gather_command_line_options

from scaling_fl.commands.caller import script
from scaling_fl.commands.command_line import REFUSED, CommandLine, read_command_line
from scaling_fl.commands.endings import ROOT, Misused
from scaling_fl.commands.experiment import RunObserver, make_experiment
from scaling_fl.commands.resume import resume_command
from scaling_fl.commands.settings import read_plan, read_training
from scaling_fl.config import Config, ConfigurationError

SCRIPT = str(ROOT / "scripts" / "train_federated.py")
TYPED = "./run-local.sh scripts/train_federated.py"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCALING_FL_RUNNER", "./run-local.sh")


def read(*words: str) -> CommandLine:
    return read_command_line(
        [SCRIPT, *words], commands=["print_config"], options={"--comment": "-c"}
    )


def test_each_option_of_sacred_works_or_is_refused_in_one_sentence_and_not_in_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [o for o in gather_command_line_options() if isinstance(o, CLIOption)]
    flags = {option.get_flags() for option in options} | {("-m", "--mongo_db"), ("-q", "--queue")}
    assert flags == set(REFUSED) | {("-h", "--help"), ("-c", "--comment")}
    assert read_training("", [SCRIPT, "--help"]) == (None, 0)
    capsys.readouterr()
    for names in REFUSED:
        for name in names:
            checked, code = read_training("", [SCRIPT, name, "with", "demo"])
            assert (checked, code) == (None, 2)
            said = capsys.readouterr().err
            assert said.startswith(f"Error: {name} must be left out; "), said
            assert said.count("\n") == 1


def test_values_of_refused_options_are_not_taken_for_commands() -> None:
    for words in (["-m", "host"], ["-mhost"], ["-m=host"], ["--mongo_db=host"]):
        with pytest.raises(Misused, match=r"^(-m|--mongo_db) must be left out; [^\n]+$"):
            read(*words, "with", "demo")


def test_a_comment_is_taken_from_anywhere() -> None:
    for words in (["-c", "a b"], ["--comment=a b"], ["--comment", "a b"], ["-ca b"]):
        assert read(*words, "with", "demo").options == {"--comment": "a b"}
        assert read("with", "demo", *words).options == {"--comment": "a b"}


def test_a_comment_is_kept_with_the_record_of_the_run() -> None:
    line = read("-c", "a first try", "with", "demo")
    kept: list[str] = []

    class Reader(RunObserver):
        def started_event(self, *, meta_info: dict[str, str], **others: object) -> None:
            kept.append(meta_info["comment"])

    experiment = make_experiment(line.settings, lambda: {})
    experiment.observers.append(Reader())
    experiment.run(options=dict(line.options))
    assert kept == ["a first try"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["demo", "num_rounds=3"],
            "settings must follow the word with, got demo before it; type:\n"
            f"  {TYPED} with demo num_rounds=3",
        ),
        (
            ["num_rounds=3", "with", "demo"],
            "settings must follow the word with, got num_rounds=3 before it; type:\n"
            f"  {TYPED} with num_rounds=3 demo",
        ),
        (["with"], f"with must be followed by settings, got none; type:\n  {TYPED} with demo"),
        (
            ["print_confg", "with", "demo"],
            "the command must be one of print_config, or none, got print_confg; use print_config",
        ),
        (
            ["save_config"],
            "the command must be one of print_config, or none, got save_config; the record of a "
            "run has its settings (config.json)",
        ),
        (
            ["--num-rounds", "3", "with", "demo"],
            "settings must follow the word with, got --num-rounds; type with num_rounds=VALUE",
        ),
        (
            ["--num_rounds=3"],
            "settings must follow the word with, got --num_rounds=3; type with num_rounds=VALUE",
        ),
        (
            ["--coment=x", "with", "demo"],
            "an option must be one that train_federated.py has, got --coment; use --comment",
        ),
        (["with", "demo", "-c"], "--comment must have a value, got -c; see --help"),
        (
            ["-u", "-q", "with", "demo"],
            "2 problems in the command:\n-u must be left out; every run is tracked in the folder "
            "tracking.runs_dir; name another with tracking.runs_dir=FOLDER\n"
            "-q must be left out; runs are queued by scripts/run_experiments.py",
        ),
    ],
)
def test_what_cannot_be_meant_is_told_with_what_to_type(words: list[str], expected: str) -> None:
    with pytest.raises(Misused) as error:
        read(*words)
    assert str(error.value) == expected


def test_nothing_typed_is_told_what_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_training("", [SCRIPT]) == (None, 2)
    assert capsys.readouterr().err == (
        f"Error: settings must say what to train on, got none; try first:\n  {TYPED} with demo\n"
    )
    assert read_plan("", [str(ROOT / "scripts" / "plan.py"), "--json"]) == (None, 2)
    assert "scripts/plan.py with demo" in capsys.readouterr().err


def test_all_that_is_wrong_about_settings_is_told_at_once() -> None:
    line = read("with", "nofile.yaml", "num_rouns=0", "adapter=3", "seed=-1", "momentum=0.5",
                "optimiser=adam")  # fmt: skip
    with pytest.raises(ConfigurationError) as error:
        line.config()
    assert [problem.path for problem in error.value.problems] == [
        "nofile.yaml", "seed", "adapter", "num_rouns", "momentum",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words", [["adapter=3", "adapter.rank=2"], ["adapter.rank=2", "adapter=3"]]
)
def test_a_value_in_the_place_of_a_section_is_never_lost(words: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="adapter must be a section"):
        read("with", "demo", *words).config()


def test_print_config_shows_the_settings_and_then_what_is_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    checked, code = read_training("", [SCRIPT, "print_config", "with", "num_rounds=7"])
    said = capsys.readouterr()
    assert (checked, code, said.err) == (None, 0, "")
    assert "* num_rounds" in said.out
    wrong = ["adapter=3", "seed=-1", "nokey=1", "train_path=none.csv"]
    assert read_training("", [SCRIPT, "print_config", "with", *wrong]) == (None, 2)
    said = capsys.readouterr()
    assert "* num_rounds" not in said.out
    assert "nokey = 1  (unknown)" in said.out
    assert said.err.startswith("Error: 4 problems in the configuration:\n")


def resumed(*words: str, **named: str) -> str:
    places = {"job_name": "j", "checkpoints_dir": str(Path.cwd() / "checkpoints" / "j")} | named
    command = resume_command(read(*words), places)
    assert command.startswith(f"{TYPED} ")
    return command.removeprefix(f"{TYPED} ")


def test_the_command_that_resumes_is_short_and_means_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resumed("with", "demo") == "with demo job_name=j"
    assert resumed("with", "demo", "num_rounds=3", "seed=0", "num_rounds=5", "batch_size=16") == (
        "with demo num_rounds=5 job_name=j"
    )
    assert resumed("with", "demo", "batch_size=32") == "with demo batch_size=32 job_name=j"
    assert resumed("-c", "a try", "with", "demo", "job_name=j") == (
        "--comment 'a try' with demo job_name=j"
    )
    path = str(tmp_path / "my data" / "a.csv")
    assert resumed("with", f"train_path={path}") == "with 'train_path=my data/a.csv' job_name=j"
    assert resumed("with", "demo", checkpoints_dir="s3://b/j") == (
        "with demo job_name=j checkpoints_dir=s3://b/j"
    )
    assert resumed("with", "demo", "checkpoints_dir=checkpoints/j") == "with demo job_name=j"
    (tmp_path / "a.json").write_text(json.dumps({"job_name": "j", "checkpoints_dir": "s3://b/j"}))
    assert resumed("with", "a.json", checkpoints_dir="s3://b/j") == "with a.json"
    for words in (
        ["demo", "tiers=[{'rank': 1}, {}]", "adapter.kind=lora"],
        ["configs/flasc_4.yaml"],
    ):
        again = resumed("with", *words)
        typed = read(*shlex.split(again)).config()
        first = read("with", *words, "job_name=j").config()
        assert typed == first
        assert isinstance(first, Config)


def test_a_script_is_named_as_this_program_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert script("plan.py") == "./run-local.sh scripts/plan.py"
    Path("scripts").mkdir()
    Path("scripts/plan.py").touch()
    assert script("plan.py").removeprefix("./run-local.sh ") != "scripts/plan.py"
    with monkeypatch.context() as inside:  # whose program is in another place than outside
        inside.setenv("SCALING_FL_CONTAINER", "1")
        assert script("plan.py") == "./run-local.sh scripts/plan.py"
    monkeypatch.delenv("SCALING_FL_RUNNER")
    monkeypatch.setattr(sys, "orig_argv", ["python3", "x.py"])
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "prefix", "/usr")
    assert script("plan.py") == "python3 scripts/plan.py"
    monkeypatch.setattr(sys, "prefix", str(ROOT / ".venv"))
    assert script("plan.py") == "./run-local.sh scripts/plan.py"


def test_a_start_needs_the_secret_of_its_noise_and_a_plan_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCALING_FL_NOISE_SECRET", raising=False)
    private = [
        "with",
        "demo",
        "weighting=uniform",
        "privacy.clip=1.0",
        "privacy.noise_multiplier=1.0",
    ]
    assert read_training("", [SCRIPT, *private]) == (None, 2)
    assert "SCALING_FL_NOISE_SECRET" in capsys.readouterr().err
    assert read_plan("", [SCRIPT, *private])[1] == 0
