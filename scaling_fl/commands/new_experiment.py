"""The command ``scripts/new_experiment.py``: answers -> a folder with settings and what they are.

Copier (https://copier.readthedocs.io) asks and fills the template beside this file.
"""

import difflib
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from scaling_fl.commands.caller import script
from scaling_fl.commands.endings import Misused, end, show
from scaling_fl.config import read_config
from scaling_fl.config.files import read_settings_file
from scaling_fl.config.types import INSTRUCTION_TASKS
from scaling_fl.core.errors import UserError
from scaling_fl.runtime.storage.base import explained

TEMPLATE = Path(__file__).parent / "template"
LEFT_OUT = {
    "directory_name": "the folder is what is typed first",
    "project_slug": "a folder and a project have one name each",
    "email": "nothing is sent to anybody",
    "flower_username": "nothing is sent to anybody",
    "version": "a run records the version of the code",
    "tf32": "precision is fp32 or bf16",
    "lr_scheduler_type": "a learning rate is constant within a round",
    "num_cpus": "set num_threads in config.yaml",
    "num_gpus": "set site_ids in config.yaml",
    "gpu_spec": "a run records the machine that it ran on",
}
"""Variables of FlowerTune's template that there are not here, and why."""
_REFUSED = re.compile(r"Validation error for question '(?P<name>\w+)': (?P<reason>.*)", re.S)


@dataclass(frozen=True, kw_only=True)
class ProjectRequest:
    """What was asked for."""

    folder: Path
    data: list[str]
    """Answers, as NAME=VALUE."""
    defaults: bool


def main(options: Mapping[str, Any]) -> int:
    """Write a project; returns the exit code."""
    return end(partial(write_project, ProjectRequest(**options)), with_environment=False)


def write_project(request: ProjectRequest) -> None:
    """Ask what was not given, and write the folder as a whole or not at all.

    Raises:
        UserError: the folder cannot be written, or Copier is not installed.
        InputError: the folder is not empty, or an answer cannot be used.
    """
    folder = request.folder
    _check_folder(folder)
    answers = read_answers(request.data, questions())
    if find_spec("copier") is None:
        raise UserError(
            "a new experiment must have the package copier, which is not installed; run "
            "`pip install -c constraints.txt -e '.[template]'` in the folder of the project."
        )
    with explained(f"write {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
            written = Path(aside) / "project"
            _fill(written, answers | _known(folder), defaults=request.defaults)
            _check_settings(written / "config.yaml")
            written.rename(folder)
    show(f"written: {folder}\n\n  {script('train_federated.py')} with {folder}/config.yaml")


def questions() -> dict[str, dict[str, Any]]:
    """Read the questions of the template: name -> type, help, default and validator."""
    found = yaml.safe_load((TEMPLATE / "copier.yml").read_text("utf-8"))
    return {name: details for name, details in found.items() if not name.startswith("_")}


def read_answers(texts: list[str], known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Read answers as they are typed, NAME=VALUE, each by the type of its question.

    Raises:
        InputError: there is no such question, or the value is not of its type.
    """
    answers = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise Misused(f"--data must be followed by NAME=VALUE, got {text}; see --help")
        if name not in known:
            raise Misused(f"--data must name a question, got {name}; {_remedy(name, list(known))}")
        what, read = _TYPES[known[name]["type"]]
        try:
            answers[name] = read(value)
        except (KeyError, ValueError):
            raise Misused(f"{name} must be {what}, got {value!r}; give such a value") from None
    return answers


def _remedy(name: str, known: list[str]) -> str:
    if reason := LEFT_OUT.get(name):
        return f"leave it out, because {reason}"
    near = difflib.get_close_matches(name, known, n=1)
    return f"use {near[0]}" if near else f"choose from {', '.join(known)}"


_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TYPES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "int": ("a whole number", int),
    "float": ("a number", float),
    "bool": ("true or false", lambda text: _TRUTHS[text.lower()]),
    "str": ("text", str),
}


def _check_folder(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        kind = "a folder that is not empty" if folder.is_dir() else "a file"
        raise Misused(f"FOLDER must be new or empty, got {folder}, {kind}; choose another name")


def _known(folder: Path) -> dict[str, Any]:
    """Return what the template may use beside the answers."""
    name = folder.resolve().name
    return {"folder": str(folder), "folder_name": name, "tasks": list(INSTRUCTION_TASKS)}


def _fill(folder: Path, answers: dict[str, Any], *, defaults: bool) -> None:
    # The import takes time, which a wrong answer is spared.
    from copier import run_copy
    from copier.errors import InteractiveSessionError

    try:
        # The template is a part of this package; so is the extension, which Copier calls unsafe.
        run_copy(str(TEMPLATE), folder, data=answers, defaults=defaults, quiet=True, unsafe=True)
    except InteractiveSessionError:
        raise Misused(
            "questions must be answered in a terminal, and there is none; answer them by "
            "--data NAME=VALUE, or add --defaults"
        ) from None
    except ValueError as error:
        refused = _REFUSED.fullmatch(str(error))
        if refused is None:
            raise
        raise Misused(f"{refused['name']} {refused['reason']}") from None


def _check_settings(file: Path) -> None:
    """Check what the settings are together; the data need not be there yet."""
    settings = read_settings_file(file)
    read_config(settings | {"train_path": None}, has_data=False)
