"""The charting library of pages: Vega-Lite, in the bundle that a pinned package makes of it.

To make it takes seconds and the memory of a browser's engine, so that it is made once a machine
and kept in the cache.
"""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from scaling_fl.core.errors import UserError
from scaling_fl.learning.cache import cache_folder, cached_folder
from scaling_fl.reporting.report.page import Script

_PACKAGE = "vl-convert-python"
_FILE = "vega.js"


def page_script() -> Script:
    """Return the script of pages, with the library where it has been made already."""
    file = _folder() / _FILE
    library = file.read_text(encoding="utf-8") if file.is_file() else None
    return Script(library=library, library_version=version(_PACKAGE))


def bundle() -> None:
    """Make the library, unless it is in the cache.

    Raises:
        UserError: the cache cannot be written, or the library not be made.
    """
    cached_folder(_folder(), is_whole=lambda folder: (folder / _FILE).is_file(), build=_build)


def start_bundling() -> Callable[[], None]:
    """Begin to make the library in a process of its own, if it is not there; returns what ends it.

    It is for the page of a run, which does not wait for it.
    """
    if (_folder() / _FILE).is_file():
        return lambda: None
    code = f"import os; os.nice(19); from {__name__} import bundle; bundle()"
    silent = subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=silent,
        stdout=silent,
        stderr=silent,
        cwd=Path(__file__).parents[2],
    )

    def end() -> None:
        process.kill()
        process.wait()

    return end


def _folder() -> Path:
    return cache_folder() / "charts" / version(_PACKAGE)


def _build(folder: Path) -> None:
    import vl_convert

    try:
        library = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # it has a default
    except RuntimeError as error:
        raise UserError(
            f"{_PACKAGE} must be able to make the charting library, and is not "
            f"({str(error).splitlines()[0]}); install the version in pyproject.toml."
        ) from None
    (folder / _FILE).write_text(library, encoding="utf-8")
