"""By which code a run was computed, as its folder or the database has it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from scaling_fl.runtime.tracking.run_database import MONGO, RunDatabase
from scaling_fl.runtime.tracking.runs import Run, read_json


def experiment_of(run: Run) -> Mapping[str, Any]:
    """Read what Sacred has recorded of the code: repositories, sources, dependencies.

    Empty where the run is known by its journal alone, which does not say.

    Raises:
        UserError: the database cannot be reached.
    """
    entry: Any = None
    if run.folder:
        entry = read_json(run.folder / "run.json")
    elif run.where.startswith(MONGO):
        number = int(run.where.removeprefix(MONGO))
        entry = RunDatabase().document(number, "experiment")
    found = entry.get("experiment") if isinstance(entry, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def hash_of_sources(experiment: Mapping[str, Any]) -> str | None:
    """Hash the names and contents of all source files; None where the contents are not named.

    A run folder names the files by their content.
    """
    sources = experiment.get("sources") or []
    if not sources or not all(isinstance(stored, str) for _, stored in sources):
        return None
    text = json.dumps(sorted([name, stored.rpartition("/")[2]] for name, stored in sources))
    return hashlib.sha256(text.encode()).hexdigest()
