"""The Sacred experiment: command line -> checked configuration -> observers -> session."""

import os
import shlex
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling_fl.commands.endings import carried_through_sacred, end, raise_on_signals
from scaling_fl.commands.settings import (
    RunObserver,
    keep_names_as_typed,
    make_settings,
    store_sources,
)
from scaling_fl.config import Config, ConfigurationError, read_config
from scaling_fl.jobs.job import Job, open_job
from scaling_fl.jobs.session import Session
from scaling_fl.runtime.machines.node import Node, PlacementError, read_node, threads_per_worker
from scaling_fl.runtime.machines.start import FreshProcesses, Starter, choose_starter
from scaling_fl.runtime.storage.base import explained
from scaling_fl.runtime.tracking.mirror import MongoMirror, settings_from_environment
from scaling_fl.runtime.tracking.run_folder import RunFolder
from scaling_fl.runtime.tracking.runs import from_here

if TYPE_CHECKING:
    from sacred import Experiment


class Command:
    """What is known once the command line is read; Sacred's hooks fill it in order."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.session: Session | None = None
        self._job: Job | None = None
        self._starter: Starter = FreshProcesses()

    def open(self, experiment: "Experiment", settings: Mapping[str, Any]) -> dict[str, Any]:
        """Check everything, claim the job and attach the observers; nothing is recorded before."""
        try:
            node = read_node(settings["site_ids"], os.environ) if _is_ids(settings) else None
            num_nodes = node.num_nodes if node else 1
            config = read_config(settings, num_nodes=num_nodes, environ=os.environ)
            assert node
            num_threads = threads_per_worker(node, config.num_threads, os.environ)
            # The slow imports of the workers begin while this process goes on.
            self._starter = choose_starter(config.device, num_threads, os.environ)
            config = config.model_copy(update={"author": config.author or _user()})
            return self._attach(experiment, config, node)
        except (ConfigurationError, PlacementError):
            _let_the_first_process_tell()
            raise

    def _attach(self, experiment: "Experiment", config: Config, node: Node) -> dict[str, Any]:
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
        given = self.argv[1:] if "with" in self.argv else [*self.argv[1:], "with"]
        keys = {text.partition("=")[0] for text in given}
        named = named | {"checkpoints_dir": from_here(str(named["checkpoints_dir"]))}
        added = [f"{k}={named[k]}" for k in ("job_name", "checkpoints_dir") if k not in keys]
        script = Path(self.argv[0])
        runner = os.path.relpath(script.resolve().parent.parent / "run-local.sh")
        runner = shlex.quote(runner if os.sep in runner else f"./{runner}")
        # In a container, what the caller types is not to be seen.
        runner = os.environ.get("SCALING_FL_RUNNER", runner)
        return f"{runner} {shlex.join([os.path.relpath(script), *given, *added])}"

    def run(self) -> dict[str, Any]:
        assert self.session
        return self.session.run()

    def close(self) -> None:
        """Give the job up, once its record is complete, and leave no process behind."""
        self._starter.close()
        if self._job:
            self._job.claim.release()


def _let_the_first_process_tell() -> None:
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


def make_experiment(doc: str | None, command: Command) -> "Experiment":
    """Declare the experiment: its settings, its sources and what it does."""
    experiment = make_settings(doc)
    store_sources(experiment)

    @experiment.config_hook
    def open_job_of_this_start(
        config: dict[str, Any], command_name: str, logger: object
    ) -> dict[str, Any]:
        if command_name != "main":
            return {}
        with carried_through_sacred():
            return command.open(experiment, config)

    @experiment.main
    def main(_config: dict[str, Any], _run: Any) -> dict[str, Any]:
        with carried_through_sacred():
            return command.run()

    return experiment


def main(doc: str | None, argv: list[str]) -> int:
    """Run the command line; returns the exit code."""
    raise_on_signals()  # while the workers run, their launcher has handlers of its own
    command = Command(argv)
    try:
        return end(partial(_run, doc, command))
    finally:
        command.close()


def _run(doc: str | None, command: Command) -> None:
    make_experiment(doc, command).run_commandline(keep_names_as_typed(command.argv))
