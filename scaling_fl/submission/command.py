"""The training command: add the settings that a platform needs, and find those that are missing."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from scaling_fl.config import NAMED, ConfigurationError, Problem, read_config

TRAINING = "scripts/train_federated.py"
_STORES = ("gs", "gcs", "s3", "s3a")
_TEXTS = ("job_name", "author")


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

    def problems(self, *, nodes: int, gpus: int, mounts: Sequence[str]) -> list[Problem]:
        """Find all problems of the command on ``nodes`` machines."""
        found = [*self._problems, *self._site_problems(gpus), *self._checkpoint_problems(mounts)]
        try:
            read_config(self.settings, num_nodes=max(1, nodes))
        except ConfigurationError as error:
            found += [problem for problem in error.problems if not _is_about_this_disk(problem)]
        return found

    def _add(self, key: str, value: Any) -> None:
        self.settings[key] = value
        self.added.append(f"{key}={value}".replace(" ", ""))

    def _read(self) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        updates = self._arguments[self._arguments.index("with") + 1 :] if self._has_updates else []
        for text in updates:
            if "=" not in text:
                _merge(settings, self._named(text))
        for text in updates:
            if "=" in text:
                _merge(settings, _update(text))
        return settings

    @property
    def _has_updates(self) -> bool:
        return "with" in self._arguments

    def _named(self, name: str) -> Mapping[str, Any]:
        """Return the settings of a named configuration or of a YAML file."""
        if name in NAMED:
            return NAMED[name]
        try:
            found = yaml.safe_load((self._root / name).read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            found = None
        if isinstance(found, Mapping):
            return found
        rule = "must be key=value, a named configuration or a YAML file of this checkout"
        self._problems.append(Problem("with", rule, repr(name), "correct it"))
        return {}

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


def _update(text: str) -> dict[str, Any]:
    """Read ``a.b=value`` as the script does; the value is a Python literal, or else a text."""
    path, _, value = text.partition("=")
    keys = path.split(".")
    is_text = path in _TEXTS and value != "None"
    inner: Any = value.strip("'\"") if is_text else _literal(value)
    for key in reversed(keys):
        inner = {key: inner}
    return dict(inner)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _merge(settings: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(settings.get(key), dict):
            _merge(settings[key], value)
        else:
            settings[key] = dict(value) if isinstance(value, Mapping) else value
