"""The smallest whole run; and what is answered before any model loads: help, settings, errors."""

import sys
from pathlib import Path

import pytest

from scaling_fl.config import defaults
from scaling_fl.config.base import leaves
from tests.e2e.commands import TRAIN, Command, Job, Shell, arguments, federation

pytestmark = pytest.mark.e2e

HEAVY = {"torch", "transformers", "datasets", "pandas", "matplotlib", "pymongo", "s3fs", "gcsfs"}


def train_and_name_imports(shell: Shell, *typed: str) -> tuple[Command, set[str]]:
    """Type a command whose standard error also lists every module that is imported."""
    command = shell.type(sys.executable, "-X", "importtime", *TRAIN[1:], *typed)
    command.process.wait(60)
    imports = [line for line in command.err.splitlines() if line.startswith("import time:")]
    return command, {line.rpartition("|")[2].strip() for line in imports}


def test_help_explains_the_command(shell: Shell) -> None:
    command, imported = train_and_name_imports(shell, "--help")
    assert command.process.returncode == 0
    assert "with demo" in command.out
    assert "print_config" in command.out
    assert not HEAVY & imported


def test_print_config_documents_every_setting(shell: Shell) -> None:
    command, imported = train_and_name_imports(shell, "print_config", "with", "num_rounds=7")
    assert command.process.returncode == 0
    assert not HEAVY & imported
    names = [path.rpartition(".")[2] for path, _ in leaves(defaults())]
    lines = command.out.splitlines()
    for name in names:
        assert any(line.strip("* ").startswith(f"{name} ") for line in lines), name
    assert any(line.startswith("* num_rounds") and " 7 " in line for line in lines)
    assert list(shell.folder.glob("[!.]*")) == []


def test_all_configuration_errors_come_at_once_and_leave_nothing(shell: Shell) -> None:
    typed = ["num_rounds=0", "optimizer=adam", "learning_rate=fast", "momentum=0.9"]
    typed += ["optimiser=adamw", "task_name=agnews", "test_path=missing.csv", "site_ids=0"]
    typed += ["weighting=uniform", "privacy.clip=1.0", "privacy.noise_multiplier=1.0"]
    command, imported = train_and_name_imports(shell, "with", *typed)
    assert command.process.returncode == 2
    assert not HEAVY & imported
    errors = [line for line in command.err.splitlines() if not line.startswith("import time:")]
    assert errors[0] == "Error: 8 problems in the configuration:"
    for start in (
        "num_rounds must be at least 1, got 0;",
        "optimizer must be a known setting, got 'adam'; use optimiser",
        "learning_rate must be a number, got 'fast';",
        "momentum must be left alone unless optimiser is sgd, got 0.9 with optimiser=adamw;",
        "train_path must be given for agnews, got None;",
        "test_path must name an existing file, got 'missing.csv';",
        "site_ids must be a list, got 0;",
        "SCALING_FL_NOISE_SECRET must have at least 32 characters in the environment,",
    ):
        assert any(line.startswith(start) for line in errors), (start, errors)
    assert list(shell.folder.glob("[!.]*")) == []


def test_a_run_ends_with_a_summary_of_what_it_left(shell: Shell, corpus: Path) -> None:
    settings = federation(corpus, site_ids=[0], num_rounds=1, checkpoints_dir="checkpoints")
    command = shell.train(*arguments(settings)).end(expect=0)
    job = Job(shell.folder / "checkpoints", shell.folder / "runs" / "1")
    assert (job.status, job.last_round) == ("COMPLETED", 1)
    assert command.err == ""
    closing = command.out[command.out.index("completed, 1 of 1 rounds.") :]
    for part in ("validation.accuracy", "runs/1", "checkpoints"):
        assert part in closing
    job.assert_whole()


@pytest.mark.slow
def test_what_a_worker_refuses_is_one_sentence_of_the_command(shell: Shell, corpus: Path) -> None:
    (shell.folder / "train.csv").write_text("id,text,author\n1,raven,POE\n")
    settings = federation(corpus, site_ids=[0], train_path="train.csv")
    command = shell.train(*arguments(settings)).end(expect=2)
    assert command.error.startswith("train.csv, row 2, column 'author': the label must")
    assert (command.out + command.err).count("the label must") == 1
    assert "failed, 0 of 6 rounds.\n" in command.out
