"""The command that goes on with a job."""

import json
import os
import shlex
from collections.abc import Mapping
from typing import Any

from scaling_fl.commands.caller import script
from scaling_fl.commands.command_line import CommandLine
from scaling_fl.config import defaults
from scaling_fl.config.typed import merged, read_value
from scaling_fl.flower.programs import TYPED
from scaling_fl.runtime.machines.office import ADDRESS, SECURE
from scaling_fl.runtime.tracking.runs import from_here


def resume_command(line: CommandLine, named: Mapping[str, Any]) -> str:
    """Return the command that goes on with a job: what was typed, and what now names the job.

    A setting that is no other than without its being typed is left out.
    """
    without = merged(defaults(), line.typed.base)
    typed = {
        path: text
        for path, text in line.typed.values.items()
        if _at(without, path) != read_value(path, text)
    }
    place = from_here(str(named["checkpoints_dir"]))
    wanted = {"job_name": named["job_name"], "checkpoints_dir": place}
    if place == os.path.join("checkpoints", str(named["job_name"])):
        del wanted["checkpoints_dir"]
        typed.pop("checkpoints_dir", None)
    for key, value in wanted.items():
        if without[key] != value:
            typed[key] = value
    options = [text for item in line.options.items() for text in item]
    words = [*line.typed.named, *(f"{key}={_here(text)}" for key, text in typed.items())]
    if ADDRESS in os.environ:
        return _over_nodes(words, is_secure=SECURE in os.environ)
    return f"{script('train_federated.py')} {shlex.join([*options, 'with', *words])}"


def _over_nodes(words: list[str], *, is_secure: bool) -> str:
    if typed_before := os.environ.get(TYPED):
        option = ["--secure-sum"] if is_secure else []
        return f"{typed_before} {shlex.join([*option, 'with', *words])}"
    given = json.dumps(shlex.join(words), ensure_ascii=False)  # a string of TOML, too
    option = [" secure-sum=true"] if is_secure else []
    return f"flwr run . --stream -c {shlex.quote(''.join([f'with={given}', *option]))}"


def _here(text: str) -> str:
    return from_here(text) if os.path.isabs(text) else text


def _at(settings: Mapping[str, Any], path: str) -> Any:
    value: Any = settings
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
