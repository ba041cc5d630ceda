"""What a person sees on a terminal of 80 columns and through a pipe, and what to type next."""

import hashlib
import re
import shlex
import shutil
import sys

import pytest

from tests.e2e.commands import ROOT, TRAIN, Shell, arguments, federation
from tests.e2e.terminals import Terminal

pytestmark = pytest.mark.e2e

SCRIPTS = ["train_federated", "plan", "look", "evaluate", "merge_adapter", "submit", "sync_runs",
           "runs", "report", "watch", "new_experiment", "spooky_author/split_data"]  # fmt: skip


def typed(shell: Shell, *argv: str) -> Terminal:
    return Terminal(list(argv), shell.folder, shell.environ | {"TERM": "xterm"})


def assert_words_are_whole(lines: list[str]) -> None:
    """Check that lines fit; a command that is to be copied, or one long word, may be longer."""
    are_commands = False
    for line in lines:
        is_command = are_commands and line.startswith("  ")
        assert len(line) <= 80 or is_command or len(line.split()) == 1, line
        are_commands = is_command or line.endswith(":")


@pytest.mark.slow
def test_a_run_is_read_at_80_columns_and_the_commands_that_it_names_work(
    shell: Shell, corpus: object
) -> None:
    settings = federation(corpus, num_rounds=2, site_ids=[0], job_name="job")  # type: ignore[arg-type]
    settings |= {"adapter.kind": "lora"}
    terminal = typed(shell, *TRAIN, *arguments(settings)).end(expect=0)
    assert_words_are_whole(terminal.lines)
    text = "\n".join(terminal.lines)
    assert "pip install" not in text
    assert "time taken" in text
    commands = re.search(r"^To evaluate it.*:\n((?:  .+\n)+)", text, re.MULTILINE)
    assert commands
    wanted = ["validation.accuracy", "wrote ", "Job job (runs/1) is COMPLETED"]
    for line, part in zip(commands[1].splitlines(), wanted, strict=True):
        # In an environment that run-local.sh has set up, that is what is named.
        program, *more = shlex.split(line)
        program = sys.executable if program.endswith("run-local.sh") else program
        ended = shell.type(program, *more).end(expect=0)
        assert part in ended.out
        assert "pip install" not in ended.err
    assert (shell.folder / "models" / "job" / "config.json").is_file()


def test_errors_are_read_at_80_columns_and_are_one_line_each_in_a_pipe(shell: Shell) -> None:
    wrong = ["with", "train_path=/a/folder/that/is/rather/deep/train.csv", "nosetting=1",
             "optimiser=adam", "momentum=0.5"]  # fmt: skip
    lines = typed(shell, *TRAIN, *wrong).end(expect=2).lines
    assert_words_are_whole(lines)
    assert len(lines) > 6
    piped = shell.train(*wrong).end(expect=2).err.splitlines()
    assert len(piped) == 5
    assert " ".join(" ".join(lines).split()) == " ".join(piped)


def test_the_settings_are_read_at_80_columns(shell: Shell) -> None:
    lines = typed(shell, *TRAIN, "print_config", "with", "demo").end(expect=0).lines
    assert max(map(len, lines)) <= 80
    piped = shell.train("print_config", "with", "demo").end(expect=0).out
    assert max(map(len, piped.splitlines())) <= 80


def test_what_to_type_is_named_as_run_local_was_started(shell: Shell) -> None:
    project, folder = shell.folder / "a project", shell.folder / "elsewhere"
    folder.mkdir()
    (project / ".venv" / "bin").mkdir(parents=True)
    for name in ("run-local.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, project)
    for name in ("scripts", "scaling_fl", "configs"):
        (project / name).symlink_to(ROOT / name)
    python = project / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((project / name).read_bytes())
    (project / ".venv" / "pyvenv.cfg").touch()
    (project / ".venv" / ".ready").write_text(f"{digest.hexdigest()}\n{project}")
    command = f"cd '{folder}' && '../a project/run-local.sh' scripts/train_federated.py"
    typed = shell.type("bash", "-c", f"{command}; {command} demo")
    lines = typed.end(expect=2).err.splitlines()
    runner = "  ../a\\ project/run-local.sh scripts/train_federated.py"
    assert [line for line in lines if line.startswith("  ")] == [f"{runner} with demo"] * 2


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_short_fits_and_has_examples(shell: Shell, name: str) -> None:
    helped = shell.type(sys.executable, str(ROOT / "scripts" / f"{name}.py"), "--help")
    lines = helped.end(expect=0).out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 60
    examples = lines[lines.index("examples:") + 1 :]
    assert sum(line.startswith(f"  scripts/{name}.py") for line in examples) >= 2
