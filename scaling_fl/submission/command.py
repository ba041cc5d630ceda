"""The training command: add the settings that a platform needs, and find those that are missing."""

import difflib
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from scaling_fl.config import ConfigurationError, Problem, read_config
from scaling_fl.config.typed import read_typed

TRAINING = "scripts/train_federated.py"
QUEUE = "scripts/run_experiments.py"
WORKDIR = "/workspace"
_IN_IMAGE = ("scripts", "scaling_fl")
MONGO = "mongo:"
_STORES = ("gs", "gcs", "s3", "s3a")


def script_in_project(argument: str) -> str:
    """Return the path of a script in the project, as the image starts it: ./a/b.py is a/b.py."""
    path = posixpath.normpath(argument)
    return path.removeprefix(f"{WORKDIR}/")


def script_problems(arguments: Sequence[str], root: Path) -> Iterator[Problem]:
    """Find out whether the script is in the project of the image, which is that of ``root``.

    An option of python, such as -m, and a path that only an own image has are passed on.
    """
    if not arguments:
        yield Problem("the command", "must follow --", "none", f"add -- {TRAINING} with ...")
        return
    script = script_in_project(arguments[0])
    if script.startswith(("-", "/")) or (
        (root / script).is_file() and PurePosixPath(script).parts[0] in _IN_IMAGE
    ):
        return
    there = sorted(str(path.relative_to(root)) for path in (root / "scripts").rglob("*.py"))
    near = difflib.get_close_matches(script, there, n=1, cutoff=0.5)
    remedy = f"use {near[0]}" if near else f"use one of {', '.join(there)}"
    rule = "must begin with a script that the image holds, which are those of this project"
    yield Problem("the command", rule, repr(arguments[0]), remedy)


def queue_problems(arguments: Sequence[str], mounts: Sequence[str] | None) -> Iterator[Problem]:
    """Find out whether machines that have only ``mounts`` in common can serve the same queue.

    ``mounts`` None: they share the disk that holds this checkout.
    """
    given = dict(_options(arguments))
    if "--queue" not in given:
        rule = "must serve a queue, because a sweep without one has all its runs on one machine"
        yield Problem("the command", rule, repr(" ".join(arguments)), "add --queue NAME")
    place = given.get("--sweeps-dir", "")
    if mounts is not None and place != MONGO and not _outlives_the_container(place, mounts):
        rule = "must be what all machines share, because the disk of a container is its own"
        remedy = f"use {MONGO}, gs://BUCKET/sweeps or s3://BUCKET/sweeps"
        yield Problem("--sweeps-dir", rule, repr(place) if place else "none", remedy)


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (option, value) of what is typed as ``--name VALUE`` or ``--name=VALUE``."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument.startswith("--"):
            name, separator, value = argument.partition("=")
            yield name, value if separator else following


class TrainingCommand:
    """The command line of the training script, read in the same way as by the script."""

    def __init__(self, arguments: Sequence[str], *, root: Path) -> None:
        self._arguments, self._root = list(arguments), root
        self.added: list[str] = []
        self._problems: list[Problem] = []
        self.settings = self._read()

    @property
    def arguments(self) -> list[str]:
        """The arguments of the user, and the settings that were added."""
        given = self._arguments
        keyword = [] if "with" in given or not self.added else ["with"]
        return [*given, *keyword, *self.added]

    @property
    def job_name(self) -> str:
        return str(self.settings.get("job_name") or "")

    def complete(self, *, name: str, gpus: int) -> None:
        """Add the name of the job, by which it resumes, and one site for each GPU."""
        if not self.job_name and name:
            self._add("job_name", name)
        if "site_ids" not in self.settings:
            self._add("site_ids", list(range(max(1, gpus))))

    def problems(self, *, nodes: int, gpus: int, mounts: Sequence[str] | None) -> list[Problem]:
        """Find all problems of the command on ``nodes`` machines.

        ``mounts`` are the folders that outlive the job; None: all do.
        """
        found = [*self._problems, *self._site_problems(gpus)]
        found += [] if mounts is None else self._checkpoint_problems(mounts)
        try:
            read_config(self.settings, num_nodes=max(1, nodes))
        except ConfigurationError as error:
            found += [problem for problem in error.problems if not _is_about_this_disk(problem)]
        return found

    def _add(self, key: str, value: Any) -> None:
        self.settings[key] = value
        self.added.append(f"{key}={value}".replace(" ", ""))

    def _read(self) -> dict[str, Any]:
        given = self._arguments
        updates = given[given.index("with") + 1 :] if "with" in given else []
        # The container has the files of this checkout, and no others.
        typed = read_typed(updates, [self._root])
        self._problems += typed.problems
        return typed.settings

    def _site_problems(self, gpus: int) -> Iterator[Problem]:
        ids = self.settings.get("site_ids")
        if (
            gpus > 0
            and isinstance(ids, list)
            and any(isinstance(i, int) and i >= gpus for i in ids)
        ):
            remedy = f"use ids from 0 to {gpus - 1} or a larger --gpus"
            yield Problem("site_ids", f"must be below --gpus {gpus}", str(ids), remedy)

    def _checkpoint_problems(self, mounts: Sequence[str]) -> Iterator[Problem]:
        given = self.settings.get("checkpoints_dir")
        remedy = f"use gs://BUCKET/{self.job_name or 'NAME'} or s3://BUCKET/..."
        if not given:
            rule = "must be given, because the disk of a container ends with the container"
            yield Problem("checkpoints_dir", rule, "none", remedy)
        elif not _outlives_the_container(str(given), mounts):
            places = " or ".join(["in an object store", *(f"below {path}" for path in mounts)])
            rule = f"must be {places}, because the disk of a container ends with the container"
            yield Problem("checkpoints_dir", rule, repr(given), remedy)


def _outlives_the_container(location: str, mounts: Sequence[str]) -> bool:
    scheme, separator, _ = location.partition("://")
    if separator:
        return scheme in _STORES
    path = PurePosixPath(location)
    return ".." not in path.parts and any(path.is_relative_to(mount) for mount in mounts)


def _is_about_this_disk(problem: Problem) -> bool:
    """Say whether the problem is a file that is missing here but may exist in the container."""
    return problem.rule.startswith("must name an existing")
