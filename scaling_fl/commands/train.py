"""The Sacred experiment: command line -> checked configuration -> observers -> session."""

import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scaling_fl.config import NAMED, Config, ConfigurationError, defaults, describe, read_config
from scaling_fl.core.errors import UserError
from scaling_fl.jobs.job import Job, from_here, open_job
from scaling_fl.jobs.session import Session, Stopped
from scaling_fl.runtime.environment import load_environment
from scaling_fl.runtime.machines.launch import WorkerFailed
from scaling_fl.runtime.machines.node import Node, PlacementError, read_node, threads_per_worker
from scaling_fl.runtime.machines.start import FreshProcesses, Starter, choose_starter
from scaling_fl.runtime.record.journal import JournalError
from scaling_fl.runtime.secret_manager import SecretUnavailable
from scaling_fl.runtime.storage import StorageError
from scaling_fl.runtime.storage.base import explained
from scaling_fl.runtime.tracking.mirror import MongoMirror, SettingsError, settings_from_environment
from scaling_fl.runtime.tracking.run_folder import RunFolder

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # a machine may have no git at all
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources")
    from sacred import SETTINGS, Experiment
    from sacred.dependencies import Source, get_commit_if_possible, get_digest
    from sacred.observers import RunObserver as RunObserver  # and for the command that plans

# Workers write to the console through the parent, which keeps cout.txt itself: Sacred's own capture
# loses the last lines of a failed run and stores every redraw of a progress display.
SETTINGS.CAPTURE_MODE = "no"
SETTINGS.CONFIG.READ_ONLY_CONFIG = False


class Refused(SystemExit):
    """A start that is refused before anything is recorded: the text goes to standard error."""


class Command:
    """What is known once the command line is read; Sacred's hooks fill it in order."""

    def __init__(self, argv: list[str]) -> None:
        self._argv = argv
        self.session: Session | None = None
        self._job: Job | None = None
        self._starter: Starter = FreshProcesses()

    def open(self, experiment: Experiment, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Check everything, claim the job and attach the observers; nothing is recorded before."""
        try:
            node = read_node(settings["site_ids"], os.environ) if _is_ids(settings) else None
            config = read_config(settings, num_nodes=node.num_nodes if node else 1)
            assert node
            num_threads = threads_per_worker(node, config.num_threads, os.environ)
            # The slow imports of the workers begin while this process goes on.
            self._starter = choose_starter(config.device, num_threads, os.environ)
            config = config.model_copy(update={"author": config.author or _user()})
            return self._attach(experiment, config, node)
        except ConfigurationError as error:
            _leave_to_the_first()
            print(error, file=sys.stderr)
            sys.exit(2)
        except PlacementError as error:
            _leave_to_the_first()
            raise Refused(f"Error: {error}") from None
        except (UserError, JournalError, StorageError, SettingsError) as error:
            raise Refused(f"Error: {error}") from None

    def _attach(self, experiment: Experiment, config: Config, node: Node) -> dict[str, Any]:
        job: Job | None = None
        folder: RunFolder | None = None
        mirror: MongoMirror | None = None
        settings = settings_from_environment(os.environ)
        if node.rank == 0:
            job = self._job = open_job(config)
            _check_writable(Path(config.tracking.runs_dir))
            folder = RunFolder(
                config.tracking.runs_dir,
                run_id=job.record.run_id or None,
                uid=job.uid,
                job_name=job.name,
            )
            experiment.observers.append(folder)
            if settings:
                mirror = MongoMirror(folder, settings.uri, settings.database)
                experiment.observers.append(mirror)
        else:
            experiment.observers.append(RunObserver())  # Sacred warns of a run without any
        named = {
            "author": config.author,
            "job_name": job.name if job else config.job_name,
            "checkpoints_dir": job.checkpoints_url if job else config.checkpoints_dir,
        }
        self.session = Session(
            config.model_copy(update=named),
            node,
            job=job,
            folder=folder,
            mirror=mirror,
            starter=self._starter,
            resume_command=self._resume_command(named),
        )
        return named

    def _resume_command(self, named: dict[str, Any]) -> str:
        given = self._argv[1:] if "with" in self._argv else [*self._argv[1:], "with"]
        keys = {text.partition("=")[0] for text in given}
        named = named | {"checkpoints_dir": from_here(str(named["checkpoints_dir"]))}
        added = [f"{k}={named[k]}" for k in ("job_name", "checkpoints_dir") if k not in keys]
        script = Path(self._argv[0])
        runner = os.path.relpath(script.resolve().parent.parent / "run-local.sh")
        runner = shlex.quote(runner if os.sep in runner else f"./{runner}")
        # In a container, what the caller types is not to be seen.
        runner = os.environ.get("SCALING_FL_RUNNER", runner)
        return f"{runner} {shlex.join([os.path.relpath(script), *given, *added])}"

    def run(self) -> dict[str, Any]:
        assert self.session
        try:
            return self.session.run()
        except (WorkerFailed, JournalError) as error:
            raise Refused(f"Error: {error}") from None

    def close(self) -> None:
        """Give the job up, once its record is complete, and leave no process behind."""
        self._starter.close()
        if self._job:
            self._job.claim.release()


def _leave_to_the_first() -> None:
    """Leave an error that all processes of torchrun meet to the first, whose end ends them all."""
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("LOCAL_RANK") != "0":
        time.sleep(15)


def _check_writable(runs_dir: Path) -> None:
    with explained(f"write the record of the run to {runs_dir} (tracking.runs_dir)"):
        runs_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=runs_dir).close()


def _is_ids(settings: Mapping[str, Any]) -> bool:
    ids = settings["site_ids"]
    return isinstance(ids, list) and bool(ids) and all(isinstance(i, int) for i in ids)


def _user() -> str | None:
    return os.environ.get("USER_NAME") or os.environ.get("USER")


def _has_commit(root: Path) -> bool:
    """Say whether git can name the code's state; Sacred fails where it cannot."""
    try:
        command = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _name_sources(experiment: Experiment, root: Path) -> None:
    """Have the whole package stored: Sacred sees only what this process imports.

    The commit is looked up once: Sacred would start git three times for each file, which takes two
    seconds, and does not where ``experiment`` was made with ``save_git_info=False``.
    """
    commit = get_commit_if_possible(str(root / "scaling_fl"), _has_commit(root))
    seen = {source.filename for source in experiment.sources}
    files = {str(path) for path in (root / "scaling_fl").rglob("*.py") if path.stat().st_size}
    experiment.sources = {Source(path, get_digest(path), *commit) for path in seen | files}
    for package in (
        "torch",
        "transformers",
        "peft",
        "tokenizers",
        "safetensors",
        "datasets",
        "dp-accounting",
    ):
        # Sacred refuses the local part of a version, such as +cpu.
        experiment.add_package_dependency(package, version(package).partition("+")[0])


def make_settings(root: Path, doc: str | None) -> Experiment:
    """Declare the configuration, the named configurations and the command that prints them."""
    experiment = Experiment("scaling_fl", base_dir=str(root), save_git_info=False)
    experiment.doc = doc
    # Silent up to warnings, unlike its default.
    experiment.logger = logging.getLogger("sacred")  # type: ignore[assignment]
    experiment.add_config(defaults())
    for name, settings in NAMED.items():
        experiment.add_named_config(name, settings)

    @experiment.command(unobserved=True)
    def print_config(_config: dict[str, Any]) -> None:
        """Print every setting with its value and what it means."""
        print(describe(_config, colour=sys.stdout.isatty()))

    return experiment


def make_experiment(script: Path, doc: str | None, command: Command) -> Experiment:
    """Declare the experiment: its settings, its sources and what it does."""
    root = script.resolve().parent.parent
    experiment = make_settings(root, doc)
    _name_sources(experiment, root)

    @experiment.config_hook
    def open_job_of_this_start(
        config: dict[str, Any], command_name: str, logger: object
    ) -> dict[str, Any]:
        return command.open(experiment, config) if command_name == "main" else {}

    @experiment.main
    def main(_config: dict[str, Any], _run: Any) -> dict[str, Any]:
        return command.run()

    return experiment


def keep_names_as_typed(argv: list[str]) -> list[str]:
    """Quote names for Sacred's parser, which takes job_name=20261121_101010 for a number."""
    kept = []
    for argument in argv:
        key, equals, value = argument.partition("=")
        is_bare = key in ("job_name", "author") and value[:1] not in ("'", '"')
        kept.append(f"{key}={value!r}" if equals and is_bare and value != "None" else argument)
    return kept


def _load_environment(root: Path) -> None:
    try:
        load_environment(root)
    except SecretUnavailable as error:
        raise Refused(f"Error: {error}") from None


def main(script: str, doc: str | None, argv: list[str]) -> int:
    """Run the command line; returns the exit code."""
    _load_environment(Path(script).resolve().parent.parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    command = Command(argv)
    try:
        make_experiment(Path(script), doc, command).run_commandline(keep_names_as_typed(argv))
    except Stopped as stopped:
        return stopped.exit_code
    finally:
        command.close()
    return 0


def _stop(number: int, frame: object) -> None:
    """End in good order before and after the workers' time; the launcher has handlers of its own.

    Only once: a second signal must not cut the closing short.
    """
    signal.signal(number, signal.SIG_IGN)
    raise Stopped(number)
