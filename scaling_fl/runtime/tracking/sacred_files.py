"""The files of Sacred's FileStorageObserver, each replaced as a whole and free of secrets."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling_fl.core.json_text import json_text
from scaling_fl.runtime.redaction import redact
from scaling_fl.runtime.tracking.run_files import copy_file, plain, replace_file, store_by_content

with warnings.catch_warnings():
    # Sacred imports pkg_resources, which warns of its own end at every start.
    warnings.filterwarnings("ignore", message="pkg_resources")
    from sacred.observers import FileStorageObserver

OWN_FILES = {"run.json", "config.json", "info.json", "metrics.json", "cout.txt"}
OWN_FILES |= {"mirror.json", "mlflow.json", "earlier.json"}


class SacredFiles(FileStorageObserver):
    """How the observer of a run writes; which files, and when, is its own matter."""

    _secrets: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The folder of this run; known once it is open."""
        if self.dir is None:
            raise RuntimeError("the run folder is known only once it is open")
        return Path(self.dir)

    def save_json(self, obj: object, filename: str) -> None:
        replace_file(self.path / filename, self._json(obj))

    def _json(self, obj: object) -> bytes:
        return json_text(self._plain(obj), sort_keys=True, indent=2).encode()

    def save_file(self, filename: str, target_name: str | None = None) -> None:
        name = target_name or os.path.basename(filename)
        folder, target = self.path.resolve(), (self.path / name).resolve()
        if folder not in target.parents or str(target.relative_to(folder)) in OWN_FILES:
            raise ValueError(
                f"an artifact's name must be a path inside the run folder other than "
                f"{', '.join(sorted(OWN_FILES))}, got {name!r}; choose another name."
            )
        if target != Path(filename).resolve():
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(Path(filename), target)

    def find_or_save(self, filename: str | os.PathLike[str], store_dir: Path) -> Path:
        return store_by_content(Path(filename), store_dir)

    def save_sources(self, ex_info: Mapping[str, Any]) -> list[list[str]]:
        base, store = Path(ex_info["base_dir"]), Path(self.source_dir)
        stored = {name: self.find_or_save(base / name, store) for name, _ in ex_info["sources"]}
        return [[name, os.path.relpath(path, self.basedir)] for name, path in stored.items()]

    def _plain(self, value: object) -> Any:
        return plain(value, lambda text: redact(text, self._secrets))
