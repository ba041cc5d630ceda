#!/usr/bin/env python3
"""Deliver to the database what is left of the runs: ``scripts/sync_runs.py [--runs-dir runs]``.

A run whose database was away keeps its whole record in its folder. This brings the database that
the environment (or ``.env``) names up to date; doing it twice changes nothing.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymongo.database import Database

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.runtime.secret_manager import SecretUnavailable, resolve_secrets  # noqa: E402
from scaling_fl.runtime.tracking.mirror import deliver, is_delivered  # noqa: E402
from scaling_fl.runtime.tracking.mongo_settings import (  # noqa: E402
    MongoSettings,
    SettingsError,
    failure_sentence,
    settings_from_environment,
)

# Nothing waits for this script, so a large file on a slow line may take its time.
SOCKET_SECONDS = 30.0
ALL_DELIVERED, NOT_DELIVERED, MISUSED = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        settings = _settings()
        runs = _runs(options.runs_dir)
    except (SecretUnavailable, SettingsError, NotADirectoryError) as error:
        print(f"sync_runs: {error}", file=sys.stderr)
        return MISUSED
    return _deliver_all(runs, settings, again=options.all)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/sync_runs.py",
        description="Deliver what is left of every run folder to the database that "
        "SACRED_MONGO_URI (or SACRED_USER, _PASSWORD, _HOST and _DATABASE) names.",
        epilog="Exit code: 0 when all is delivered, 1 when the database is away, 2 on misuse.",
    )
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="default: runs")
    parser.add_argument(
        "--all", action="store_true", help="compare runs that are marked as delivered, too"
    )
    return parser


def _settings() -> MongoSettings:
    from dotenv import load_dotenv

    load_dotenv(ROOT / ".env")
    os.environ.update(resolve_secrets(os.environ))
    settings = settings_from_environment(os.environ)
    if settings is None:
        raise SettingsError(
            "no database is named; set SACRED_MONGO_URI, or SACRED_USER, SACRED_PASSWORD, "
            "SACRED_HOST and SACRED_DATABASE, in the environment or in .env."
        )
    return settings


def _runs(runs_dir: Path) -> list[Path]:
    if not runs_dir.is_dir():
        raise NotADirectoryError(
            f"--runs-dir must be a folder of runs, got {str(runs_dir)!r}, which is none; "
            f"give the folder that tracking.runs_dir named."
        )
    runs = [path for path in runs_dir.iterdir() if path.name.isdecimal() and path.is_dir()]
    return sorted(runs, key=lambda path: int(path.name))


def _is_ours(run: Path) -> bool:
    """Tell a run of this project, which has a uid from its first moment, from any other folder."""
    try:
        return "uid" in json.loads((run / "info.json").read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def _deliver_all(runs: list[Path], settings: MongoSettings, *, again: bool) -> int:
    from pymongo.errors import PyMongoError

    try:
        with settings.connect(socket_seconds=SOCKET_SECONDS) as client:
            client.admin.command("ping")
            database = client[settings.database]
            whole = [_deliver_one(run, database, settings, again=again) for run in runs]
    except SettingsError as error:
        print(f"sync_runs: {error}.", file=sys.stderr)
        return MISUSED
    except PyMongoError as error:
        sentence = failure_sentence(error, settings)
        print(f"sync_runs: {sentence}; nothing is lost, try again later.", file=sys.stderr)
        return NOT_DELIVERED
    return ALL_DELIVERED if all(whole) else NOT_DELIVERED


def _deliver_one(
    run: Path, database: "Database[dict[str, Any]]", settings: MongoSettings, *, again: bool
) -> bool:
    """Deliver a run, print its line, and tell whether there is nothing left of it to deliver."""
    from bson.errors import BSONError

    if not _is_ours(run):
        print(f"run {run.name}: passed over, it is not a run of this project")
        return True
    if not again and is_delivered(run, settings):
        print(f"run {run.name}: already delivered")
        return True
    try:
        number = deliver(run, database, settings)
    except (BSONError, OSError, LookupError, ValueError) as error:
        print(f"run {run.name}: cannot be delivered ({type(error).__name__}: {error})")
        return False
    print(f"run {run.name}: delivered to {settings.target} as run {number}")
    return True


if __name__ == "__main__":
    sys.exit(main())
