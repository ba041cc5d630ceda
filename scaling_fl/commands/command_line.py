"""The command line of the scripts that take settings: ``SCRIPT [COMMAND] [options] [with ...]``."""

import difflib
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaling_fl.commands.caller import script
from scaling_fl.commands.endings import ROOT, Misused
from scaling_fl.config import Config, ConfigurationError, defaults, read_config
from scaling_fl.config.problems import known_settings
from scaling_fl.config.typed import TypedSettings, is_setting, merged, read_typed
from scaling_fl.learning.tables.records import columns_of

HELP = ("-h", "--help", "help")
_TRACKED = "every run is tracked in the folder tracking.runs_dir"
_DATABASE = (
    "a run is mirrored to the MongoDB that SACRED_MONGO_URI names, in the environment or in .env"
)
_TRACEBACK = "a fault of the program is always shown with its whole traceback"
REFUSED: dict[tuple[str, str], str] = {
    ("-b", "--beat-interval"): "the record is brought up to date every second",
    ("-C", "--capture"): "the output of a run is always kept in its cout.txt",
    ("-d", "--debug"): _TRACEBACK,
    ("-D", "--pdb"): "set SCALING_FL_DEBUG_WORKER to debug a worker (see .env.template)",
    ("-e", "--enforce_clean"): "the record keeps the commit and every source file as it is",
    ("-f", "--force"): "nothing has to be forced",
    ("-F", "--file_storage"): f"{_TRACKED}; type tracking.runs_dir=FOLDER after with",
    ("-i", "--id"): "runs are numbered in order; name the job by job_name=NAME after with",
    ("-l", "--loglevel"): "there is one level of output",
    ("-m", "--mongo_db"): _DATABASE,
    ("-n", "--name"): "name the job by job_name=NAME after with",
    ("-p", "--print-config"): "use the command print_config in its place",
    ("-P", "--priority"): "there is no queue",
    ("-q", "--queue"): "runs are queued by scripts/run_experiments.py",
    ("-s", "--sql"): f"{_DATABASE}, and to no other database",
    ("-S", "--s3"): f"{_TRACKED}; checkpoints_dir may be s3://BUCKET/FOLDER",
    ("-t", "--tiny_db"): f"{_DATABASE}, and to no other database",
    ("-u", "--unobserved"): f"{_TRACKED}; name another with tracking.runs_dir=FOLDER",
}
"""Sacred's options that would do harm or nothing here, and what to do in place of each."""

OF_SACRED = {
    "print_dependencies": "the record of a run has them (run.json)",
    "print_named_configs": "there is demo, and what the folder configs holds",
    "save_config": "the record of a run has its settings (config.json)",
    "main": "leave it out",
}
"""Sacred's commands, and what to do in place of each."""


@dataclass
class CommandLine:
    """What was typed."""

    script: str
    """The file name of the script."""
    command: str = ""
    """The command, such as print_config; empty for the script's own work."""
    options: dict[str, str] = field(default_factory=dict)
    """The options that were given, by their long names, and their values."""
    typed: TypedSettings = field(default_factory=TypedSettings)
    wants_help: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting: what was typed, over the defaults."""
        return merged(defaults(), self.typed.settings)

    def config(
        self,
        *,
        num_nodes: int = 1,
        environ: Mapping[str, str] | None = None,
        has_data: bool = True,
        needs_weights: bool = True,
    ) -> Config:
        """Check the settings, as ``read_config`` does.

        Raises:
            ConfigurationError: with all that is wrong about them, and about how they were typed.
        """
        found = list(self.typed.problems)
        try:
            # A file that cannot be read may be the one that names the data.
            config = read_config(
                self.settings,
                num_nodes=num_nodes,
                environ=environ,
                has_data=has_data and not found,
                columns_of=columns_of,
                needs_weights=needs_weights,
            )
        except ConfigurationError as error:
            found += error.problems
        if found:
            raise ConfigurationError(found)
        return config


def read_command_line(
    argv: Sequence[str],
    *,
    commands: Sequence[str] = (),
    flags: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> CommandLine:
    """Read a command line.

    ``flags`` are options without a value and ``options`` those with one: short name, or "", by
    long name.

    Raises:
        Misused: with all that cannot be meant.
    """
    line = CommandLine(os.path.basename(argv[0]))
    reader = _Reader(line, commands, dict(flags or {}), dict(options or {}))
    updates = reader.read(list(argv[1:]))
    line.typed = read_typed(updates, (Path.cwd(), ROOT))
    if reader.found and not line.wants_help:
        raise Misused("\n".join(_counted(reader.found)))
    return line


def _counted(found: list[str]) -> list[str]:
    return found if len(found) == 1 else [f"{len(found)} problems in the command:", *found]


class _Reader:
    def __init__(
        self,
        line: CommandLine,
        commands: Sequence[str],
        flags: dict[str, str],
        options: dict[str, str],
    ) -> None:
        self._line, self._commands, self._flags, self._options = line, commands, flags, options
        self.found: list[str] = []
        self._script = line.script

    def read(self, words: list[str]) -> list[str]:
        """Take in the options and the command, and return what follows ``with``."""
        updates: list[str] = []
        is_after_with = False
        while words:
            word = words.pop(0)
            if word in HELP and not (word == "help" and is_after_with):
                self._line.wants_help = True
            elif word == "with" and not is_after_with:
                is_after_with = True
            elif word.startswith("-") and word != "-":
                self._option(word, words)
            elif is_after_with:
                updates.append(word)
            else:
                self._command(word, words)
        if is_after_with and not updates:
            self.found.append(
                "with must be followed by settings, got none; type:\n"
                f"  {script(self._script)} with demo"
            )
        return updates

    def _command(self, word: str, words: list[str]) -> None:
        if word in self._commands and not self._line.command:
            self._line.command = word
        elif is_setting(word):
            typed = shlex.join([word, *(w for w in words if w != "with")])
            self.found.append(
                f"settings must follow the word with, got {word} before it; type:\n"
                f"  {script(self._script)} with {typed}"
            )
            words.clear()  # there is no more to be said about them
        else:
            near = difflib.get_close_matches(word, [*self._commands, "with"], n=1)
            remedy = f"use {near[0]}" if near else f"see {self._script} --help"
            rule = f"the command must be one of {', '.join(self._commands)}, or none"
            self.found.append(f"{rule}, got {word}; {OF_SACRED.get(word, remedy)}")

    def _option(self, word: str, words: list[str]) -> None:
        name, equals, value = word.partition("=")
        if not name.startswith("--") and len(name) > 2:
            name, equals, value = word[:2], "=", word[2:].removeprefix("=")
        for known in (self._flags, self._options):
            for long, short in known.items():
                if name not in (long, short):
                    continue
                if known is self._options and not equals and words:
                    value, equals = words.pop(0), "="
                if bool(equals) != (known is self._options):
                    what = "a value" if known is self._options else "no value"
                    self.found.append(f"{long} must have {what}, got {word}; see --help")
                self._line.options[long] = value
                return
        self.found.append(self._refusal(word, name, words))

    def _refusal(self, word: str, name: str, words: list[str]) -> str:
        for (short, long), remedy in REFUSED.items():
            if name in (short, long):
                if long in _WITH_VALUE and word == name and words and words[0] != "with":
                    words.pop(0)
                return f"{name} must be left out; {remedy}"
        key = name.lstrip("-").replace("-", "_")
        if key in known_settings():
            if "=" not in word and words and words[0] != "with":
                words.pop(0)
            return f"settings must follow the word with, got {word}; type with {key}=VALUE"
        near = difflib.get_close_matches(name, [*self._flags, *self._options, "--help"], n=1)
        remedy = f"use {near[0]}" if near else f"see {self._script} --help"
        return f"an option must be one that {self._script} has, got {name}; {remedy}"


_WITH_VALUE = {"--beat-interval", "--capture", "--file_storage", "--id", "--loglevel"}
_WITH_VALUE |= {"--mongo_db", "--name", "--priority", "--sql", "--s3", "--tiny_db"}
