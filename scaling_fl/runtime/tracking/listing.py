"""Many runs at once: those of folders of runs, of the database, and single ones."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.tracking.copies import FolderSource, runs_of_database
from scaling_fl.runtime.tracking.run_database import MONGO
from scaling_fl.runtime.tracking.runs import Run, is_run_folder, list_runs
from scaling_fl.runtime.tracking.sources import open_run

LeftOut = Callable[[str, UserError], None]
"""Hears which run could not be read, and why."""


def places_of_runs(place: str, option: str = "PLACE") -> list[str]:
    """Name all runs of a folder of runs or, with ``mongo:``, of the database; else the run itself.

    Raises:
        UserError: there is no such place; it was given as ``option``.
    """
    path = Path(place).expanduser()
    if place == MONGO or (path.is_dir() and _holds_runs(path)):
        return list_runs(place if place == MONGO else str(path))
    if not place.startswith(MONGO) and "://" not in place and not path.is_dir():
        raise UserError(
            f"{option} must be a folder that exists, an address such as s3://bucket/job or "
            f"{MONGO}, got {place}; check the path."
        )
    return [place]


def _holds_runs(path: Path) -> bool:
    if is_run_folder(path):
        return False
    inside = list(path.iterdir())
    return not inside or any(each.name.isdecimal() for each in inside)


def read_many(places: Iterable[str], *, with_clients: bool, left_out: LeftOut) -> Iterator[Run]:
    """Read the runs at some places, in that order; ``places_of_runs`` names them.

    Without what their clients did, 500 runs take some seconds less.

    Raises:
        UserError: the database cannot be reached.
    """
    places = list(places)
    numbers = [name for place in places if (name := place.removeprefix(MONGO)) != place]
    wanted = [int(name) for name in numbers if name.isdecimal()]
    runs = runs_of_database(wanted, with_clients=with_clients) if wanted else []
    found = {run.where: run for run in runs}
    for place in places:
        try:
            yield found.get(place) or _read(place, with_clients=with_clients)
        except UserError as error:
            left_out(place, error)


def _read(place: str, *, with_clients: bool) -> Run:
    path = Path(place).expanduser()
    if not with_clients and is_run_folder(path):
        run = FolderSource(path).load(with_clients=False)
        if _is_whole(run):
            return run
    return open_run(place, "PLACE")


def _is_whole(run: Run) -> bool:
    """Say whether a run's folder tells all that its journal does, its clients aside.

    It lags behind while the run goes on, and for good after a kill or on a full disk; and it does
    not say why a run has failed.
    """
    steps = [series["steps"][-1] for series in run.record.metrics.values() if series["steps"]]
    told = max(steps, default=0) == run.record.last_round
    return told and run.status in ("COMPLETED", "DEGRADED")
