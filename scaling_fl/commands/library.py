"""What the commands do, for a notebook or a program: ``from scaling_fl import run, read_runs``.

    result = run("demo", num_rounds=2, adapter={"rank": 4})
    result.curves["validation.accuracy"].plot()
    model = result.load_model()

A call is a command line in another form: the same settings, checks, record and workers. So what a
notebook began, a command can resume, and the other way round.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling_fl.commands.command_line import CommandLine
from scaling_fl.commands.endings import ROOT
from scaling_fl.commands.settings import check
from scaling_fl.commands.train import train
from scaling_fl.config.typed import flat_settings, read_typed, typed_words
from scaling_fl.core.errors import UserError
from scaling_fl.reporting.run_rows import differing, flat
from scaling_fl.reporting.summary import summary
from scaling_fl.runtime.environment import load_environment
from scaling_fl.runtime.tracking.listing import places_of_runs
from scaling_fl.runtime.tracking.runs import Run, from_here
from scaling_fl.runtime.tracking.sources import open_run

if TYPE_CHECKING:
    import pandas

Setting = Any
"""A number, text, a list, a section as a mapping, or a function of a module (one's own)."""


class RunResult:
    """What a run has come to, as far as it is recorded."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.where = str(run.folder.absolute()) if run.folder else run.where
        """The folder of the run, or what else it was read from."""

    @property
    def status(self) -> str:
        """COMPLETED, DEGRADED (clients were left out), FAILED, INTERRUPTED, RUNNING or DEAD."""
        return self.run.status

    @property
    def stopped_by(self) -> str | None:
        """The rule of ``stop_when`` that ended the run before its last round; None: none did."""
        return self.run.record.stopped_by

    @property
    def config(self) -> dict[str, Any]:
        """All settings, as they are recorded."""
        return dict(self.run.config)

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of every metric."""
        series = self.run.record.metrics
        return {name: each["values"][-1] for name, each in series.items() if each["values"]}

    @property
    def curves(self) -> "pandas.DataFrame":
        """Every metric (column) of every round (row)."""
        from pandas import DataFrame, Series

        curves = {
            name: Series(each["values"], each["steps"], dtype=float)
            for name, each in self.run.record.metrics.items()
        }
        return DataFrame(curves).rename_axis("round").sort_index()

    @property
    def clients(self) -> "pandas.DataFrame":
        """What each client (row) did in each round; empty where that is not recorded."""
        from pandas import DataFrame

        return DataFrame(self.run.record.clients)

    @property
    def notes(self) -> list[str]:
        """What the run has said of itself, warnings included."""
        return [str(note.get("text", "")) for note in self.run.record.notes]

    @property
    def checkpoints(self) -> list[str]:
        """The places of its checkpoints that were kept, in the order of their rounds."""
        places = [str(row["path"]) for row in self.run.record.checkpoints]
        return [place for place in places if "://" in place or Path(place).is_dir()]

    @property
    def checkpoint(self) -> str:
        """The place of its last checkpoint.

        Raises:
            UserError: there is none, or it is not here.
        """
        if not self.checkpoints:
            raise UserError(
                f"the run {self.where} must have a checkpoint here, and has none; train a round, "
                "or name the folder that its checkpoints are in now."
            )
        return self.checkpoints[-1]

    def load_model(self, client: int | None = None, node: str | None = None) -> Any:
        """Load the trained model: one of transformers, with its adapter merged in, on the CPU.

        Where clients keep a part of the model (``merge.method=share_a``), name the ``client`` and,
        if it was on another machine, the folder of the job on its ``node``.

        Raises:
            UserError: there is no checkpoint, or the base model is not to be had.
            UserError: the client is not named where models differ, or named where they do not.
        """
        # By its name, because it needs torch, which takes seconds to import.
        load = import_module("scaling_fl.commands.model").load_model
        return load(self.checkpoint, client, node)

    def __repr__(self) -> str:
        return summary(self.run.facts())


class RunResults(list[RunResult]):
    """Runs in the order of their numbers."""

    @property
    def table(self) -> "pandas.DataFrame":
        """One row a run: what it is, the settings in which the runs differ, its last metrics."""
        from pandas import DataFrame

        settings = [dict(flat(each.config)) for each in self]
        names = differing(settings)
        rows = [
            {
                "run": from_here(each.where),
                "job_name": each.run.record.job_name,
                "status": each.status,
                "round": each.run.record.last_round,
                **{name: found.get(name) for name in names},
                **each.metrics,
            }
            for each, found in zip(self, settings, strict=True)
        ]
        return DataFrame(rows).set_index("run") if rows else DataFrame()


def run(*named: str | Path | Mapping[str, Setting], **settings: Setting) -> RunResult:
    """Run a federation to its end, and return what it came to.

    ``named`` are named configurations (``"demo"``), YAML or JSON files, and mappings of settings;
    ``settings`` are single ones, which overrule them, and a later one an earlier one. A section is
    a mapping (``adapter={"rank": 4}``) or a dotted path (``{"adapter.rank": 4}``). A function of a
    module stands for its name, ``my_module:name``.

    Progress is printed as the command prints it. Interrupting the kernel ends the run in order: the
    last finished round is saved, and the same call with its ``job_name`` goes on.

    Raises:
        UserError: the settings cannot be run (``ConfigurationError`` with all problems), or the
            run failed.
        KeyboardInterrupt: a signal stopped the run.
    """
    load_environment(ROOT)
    line = CommandLine("train_federated.py")
    line.typed = read_typed(list(_typed(named, settings)), (Path.cwd(), ROOT))
    with ExitStack() as closing:
        folder = train(check(line, os.environ), closing)
    assert folder, "a program runs on the first machine"
    return RunResult(open_run(str(folder.resolve())))


def read_runs(place: str | Path = "runs") -> RunResults:
    """Read all runs of a folder of runs, or with ``mongo:`` of the database; or a single run.

    A run is named by its folder, its checkpoints or ``mongo:7``.

    Raises:
        UserError: there is no such place, or it cannot be read.
    """
    load_environment(ROOT)
    places = places_of_runs(str(place), "place")
    return RunResults(RunResult(open_run(each, "place")) for each in places)


def _typed(
    named: Iterable[str | Path | Mapping[str, Setting]], settings: Mapping[str, Setting]
) -> Iterator[str]:
    """Write settings as they are typed after ``with``."""
    for each in (*named, settings):
        if isinstance(each, Mapping):
            plain = {path: _plain(value, path) for path, value in flat_settings(each)}
            yield from typed_words(plain)
        else:
            yield str(each)


def _plain(value: Setting, path: str) -> Any:
    """Turn what a program holds into what can be typed."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, path) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, path) for inner in value]
    if hasattr(value, "item"):  # a number of numpy
        return value.item()
    return _name_of(value, path) if callable(value) else value


def _name_of(function: Callable[..., Any], path: str) -> str:
    module, name = getattr(function, "__module__", ""), getattr(function, "__name__", "")
    if module == "__main__" or not name.isidentifier():
        raise UserError(
            f"{path} must be a function of a module, which workers can import, got {function!r}; "
            "write it into a file, such as my_module.py, and give 'my_module:name'."
        )
    return f"{module}:{name}"
