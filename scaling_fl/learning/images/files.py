"""Many files of images: their content identified once, however often a run begins."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scaling_fl.learning.cache import cache_folder, cached_folder
from scaling_fl.learning.tables.sources import file_digest, reading

_NUM_THREADS = 8


def files_digest(root: Path, files: Sequence[Path], cache_dir: Path | None) -> str:
    """Identify the content of files by their names inside a folder and their bytes.

    The bytes are read again only when the name, size or time of one of the files has changed.
    """
    marks = []
    for file in files:
        with reading(str(file)):
            found = file.stat()
        marks.append([file.relative_to(root).as_posix(), found.st_size, found.st_mtime_ns])
    key = _hashed([str(root.absolute()), marks])

    def build(staging: Path) -> None:
        with ThreadPoolExecutor(_NUM_THREADS) as pool:
            digests = list(pool.map(file_digest, map(str, files)))
        names = [name for name, _, _ in marks]
        (staging / "digest").write_text(_hashed([names, digests]), encoding="ascii")

    folder = cache_folder(cache_dir) / "digests" / key[:32]
    cached_folder(folder, is_whole=lambda f: (f / "digest").is_file(), build=build)
    return (folder / "digest").read_text(encoding="ascii")


def _hashed(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
