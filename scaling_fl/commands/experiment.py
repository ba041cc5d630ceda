"""The Sacred experiment, which has a run recorded: its settings, its sources and what it does."""

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scaling_fl.commands.endings import ROOT

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # a machine may have no git at all
# Sacred looks for pandas, to store data frames among settings, of which there are none here. The
# import would take a third of the time until the workers start.
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


def make_experiment(
    settings: Mapping[str, Any], work: Callable[[], dict[str, Any]], own_files: Iterable[str] = ()
) -> Experiment:
    """Declare the experiment of checked settings; ``work`` is what a run of it does.

    ``own_files`` are those that the user wrote, which are stored with the package's.
    """
    experiment = Experiment("scaling_fl", base_dir=str(ROOT), save_git_info=False)
    # Silent up to warnings, unlike its default, and about the end, which the summary tells.
    logger = logging.getLogger("sacred")
    handler = logging.StreamHandler()
    handler.addFilter(
        lambda record: not record.getMessage().startswith(("Aborted", "Failed after"))
    )
    logger.handlers, logger.propagate = [handler], False
    experiment.logger = logger  # type: ignore[assignment]
    experiment.add_config(dict(settings))
    _store_sources(experiment, own_files)

    def main(_config: dict[str, Any], _run: Any) -> dict[str, Any]:
        return work()

    experiment.main(main)
    return experiment


def _store_sources(experiment: Experiment, own_files: Iterable[str]) -> None:
    """Have the whole package stored: Sacred sees only what this process imports.

    The commit is looked up once: Sacred would start git three times for each file, which takes two
    seconds, and does not where ``experiment`` was made with ``save_git_info=False``.
    """
    package = ROOT / "scaling_fl"
    commit = get_commit_if_possible(str(package), _has_commit(ROOT))
    seen = {source.filename for source in experiment.sources}
    files = {str(path) for path in package.rglob("*.py") if path.stat().st_size}
    seen |= {*own_files}
    experiment.sources = {Source(path, get_digest(path), *commit) for path in seen | files}
    for name in (*_STORED_VERSIONS, "dp-accounting"):
        # Sacred refuses the local part of a version, such as +cpu.
        experiment.add_package_dependency(name, version(name).partition("+")[0])


def _has_commit(root: Path) -> bool:
    """Say whether git can name the code's state; Sacred fails where it cannot."""
    try:
        command = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
