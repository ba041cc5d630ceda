"""The training command: checked settings -> observers -> session."""

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from scaling_fl.commands.caller import script
from scaling_fl.commands.charting import start_bundling
from scaling_fl.commands.endings import end, raise_on_signals
from scaling_fl.commands.experiment import RunObserver, make_experiment
from scaling_fl.commands.resume import resume_command
from scaling_fl.commands.run_page import leave_page
from scaling_fl.commands.settings import Checked
from scaling_fl.config import Config
from scaling_fl.config.merges import row_of
from scaling_fl.config.own import file_of
from scaling_fl.core.errors import UserError
from scaling_fl.jobs.job import Job, open_job
from scaling_fl.jobs.session import Session
from scaling_fl.runtime.machines.node import threads_per_worker
from scaling_fl.runtime.machines.start import Starter, choose_starter
from scaling_fl.runtime.record.events import Event
from scaling_fl.runtime.storage.base import explained
from scaling_fl.runtime.tracking.event_files import prepare_events
from scaling_fl.runtime.tracking.follower import Follower
from scaling_fl.runtime.tracking.run_folder import RunFolder
from scaling_fl.runtime.tracking.trackers import named_trackers


def main(checked: Checked) -> int:
    """Run checked settings; returns the exit code."""
    raise_on_signals()  # while the workers run, their launcher has handlers of its own
    with ExitStack() as closing:
        return end(partial(train, checked, closing))


def train(
    checked: Checked,
    closing: ExitStack,
    *,
    starter: Starter | None = None,
    heard: Callable[[Event], None] | None = None,
    patience_seconds: float = 5.0,
) -> Path | None:
    """Claim the job, attach the observers and run; nothing is recorded before all is accepted.

    Returns the run's folder; None on a machine that is not the first one. ``closing`` is to be
    closed when the run is over, whatever became of it. A ``starter`` that is given is the caller's
    to close. ``heard`` is called for every event that is journaled. Processes of a run of the job
    that has died are waited for.

    Raises:
        UserError: among others, the run is complete and its record could not be.
    """
    line, node = checked.line, checked.node
    config = checked.config.model_copy(update={"author": checked.config.author or _user()})
    if config.tracking.tensorboard and node.rank == 0:
        prepare_events()
    num_threads = threads_per_worker(node, config.num_threads, os.environ)
    if starter is None:
        # The slow imports of the workers begin while this process goes on.
        starter = choose_starter(config.device, num_threads, os.environ)
        closing.callback(starter.close)
    if node.rank == 0:
        closing.callback(start_bundling())
    job: Job | None = None
    folder: RunFolder | None = None
    followers: list[Follower] = []
    trackers = named_trackers(os.environ)
    if node.rank == 0:
        job = open_job(config, patience_seconds=patience_seconds)
        closing.callback(job.claim.release)
        closing.callback(job.journal.close)
        folder = _open_folder(config, job)
        followers = [Follower(folder, tracker) for tracker in trackers]
        for follower in followers:
            follower.prepare()
    named = {
        "author": config.author,
        "job_name": job.name if job else config.job_name,
        "checkpoints_dir": job.checkpoints_url if job else config.checkpoints_dir,
    }
    session = Session(
        config.model_copy(update=named),
        node,
        job=job,
        folder=folder,
        followers=followers,
        starter=starter,
        resume_command=resume_command(line, named),
        scripts=_scripts(config),
        heard=heard,
    )
    own_files = {file for _, name in config.own_names() if (file := file_of(name))}
    experiment = make_experiment(line.settings | named, session.run, own_files)
    # Sacred warns of a run without any.
    experiment.observers += [folder, *followers] if folder else [RunObserver()]
    typed = {"named_configs": line.typed.named, "config_updates": line.typed.updates}
    try:
        experiment.run(meta_info=typed, options=dict(line.options))
    finally:
        if session.outcome:
            leave_page(session.outcome)
    if folder and folder.trouble.missing:
        raise UserError(folder.trouble.sentence(folder.path))
    return folder.path if folder else None


def _scripts(config: Config) -> dict[str, str]:
    """Say what to type for the scripts that go on from a run, by the name of each."""
    found = {name: script(name) for name in ("evaluate.py", "merge_adapter.py", "watch.py")}
    if row_of(config.merge.method).personal:  # there is no model of all
        found["merge_adapter.py"] += " --client N"
    return found


def _open_folder(config: Config, job: Job) -> RunFolder:
    _check_writable(Path(config.tracking.runs_dir))
    return RunFolder(
        config.tracking.runs_dir,
        run_id=job.record.run_id or None,
        uid=job.uid,
        job_name=job.name,
        has_events=config.tracking.tensorboard,
    )


def _check_writable(runs_dir: Path) -> None:
    with explained(f"write the record of the run to {runs_dir} (tracking.runs_dir)"):
        runs_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=runs_dir).close()


def _user() -> str | None:
    return os.environ.get("USER_NAME") or os.environ.get("USER")
