"""The settings of a command line, as Sacred reads them; no command that reads them needs torch."""

import logging
import os
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scaling_fl.commands.endings import ROOT, carried_through_sacred, show
from scaling_fl.config import NAMED, Config, defaults, describe, read_config

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # a machine may have no git at all
# Sacred looks for pandas, to store data frames among settings, of which there are none here. The
# import would take a third of the time that a refused start takes.
_pandas = sys.modules.pop("pandas", None)
sys.modules["pandas"] = None  # type: ignore[assignment]
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources")
    from sacred import SETTINGS, Experiment
    from sacred.dependencies import Source, get_commit_if_possible, get_digest
    from sacred.observers import RunObserver as RunObserver
del sys.modules["pandas"]
if _pandas:
    sys.modules["pandas"] = _pandas

# Workers write to the console through the parent, which keeps cout.txt itself: Sacred's own capture
# loses the last lines of a failed run and stores every redraw of a progress display.
SETTINGS.CAPTURE_MODE = "no"
SETTINGS.CONFIG.READ_ONLY_CONFIG = False

_STORED_VERSIONS = ("torch", "transformers", "peft", "tokenizers", "safetensors", "datasets")


def make_settings(doc: str | None) -> Experiment:
    """Declare the configuration, the named configurations and the command that prints them."""
    experiment = Experiment("scaling_fl", base_dir=str(ROOT), save_git_info=False)
    experiment.doc = doc
    # Silent up to warnings, unlike its default.
    experiment.logger = logging.getLogger("sacred")  # type: ignore[assignment]
    experiment.add_config(defaults())
    for name, settings in NAMED.items():
        experiment.add_named_config(name, settings)

    @experiment.command(unobserved=True)
    def print_config(_config: dict[str, Any]) -> None:
        """Print every setting with its value and what it means."""
        show(describe(_config, colour=sys.stdout.isatty()))

    return experiment


def store_sources(experiment: Experiment) -> None:
    """Have the whole package stored: Sacred sees only what this process imports.

    The commit is looked up once: Sacred would start git three times for each file, which takes two
    seconds, and does not where ``experiment`` was made with ``save_git_info=False``.
    """
    package = ROOT / "scaling_fl"
    commit = get_commit_if_possible(str(package), _has_commit(ROOT))
    seen = {source.filename for source in experiment.sources}
    files = {str(path) for path in package.rglob("*.py") if path.stat().st_size}
    experiment.sources = {Source(path, get_digest(path), *commit) for path in seen | files}
    for name in (*_STORED_VERSIONS, "dp-accounting"):
        # Sacred refuses the local part of a version, such as +cpu.
        experiment.add_package_dependency(name, version(name).partition("+")[0])


def keep_names_as_typed(argv: list[str]) -> list[str]:
    """Quote names for Sacred's parser, which takes job_name=20261121_101010 for a number."""
    kept = []
    for argument in argv:
        key, equals, value = argument.partition("=")
        is_bare = key in ("job_name", "author") and value[:1] not in ("'", '"')
        kept.append(f"{key}={value!r}" if equals and is_bare and value != "None" else argument)
    return kept


def read_settings(command: str, doc: str | None, argv: list[str]) -> list[Config]:
    """Read a command line as the training command does; empty when it asked for something else.

    Raises:
        Refused: the settings cannot be run.
    """
    experiment = make_settings(doc)
    experiment.observers.append(RunObserver())  # Sacred warns of a run without any
    found: list[Config] = []

    @experiment.config_hook
    def check(config: dict[str, Any], command_name: str, logger: object) -> dict[str, Any]:
        if command_name == command:
            with carried_through_sacred():
                found.append(read_config(config))
        return {}

    def nothing() -> None:
        """The work is left to the caller."""

    nothing.__name__ = command
    experiment.main(nothing)
    experiment.run_commandline(keep_names_as_typed(argv))
    return found


def _has_commit(root: Path) -> bool:
    """Say whether git can name the code's state; Sacred fails where it cannot."""
    try:
        command = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
