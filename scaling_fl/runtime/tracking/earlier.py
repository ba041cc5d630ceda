"""What the database had of a run before the run's folder was made anew, on another machine.

A folder that is made anew begins with what the journal of the job tells of earlier attempts. The
database may have more: lines that were printed after the journal was last copied to the store. So
what it has is stored in the folder, once, and from then on only added to.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling_fl.core.json_text import json_text
from scaling_fl.runtime.tracking.run_files import replace_file
from scaling_fl.runtime.tracking.run_folder import EARLIER, MADE_ANEW


def keep_earlier(run_dir: Path, info: Mapping[str, Any], found: Mapping[str, Any] | None) -> None:
    """Store what the database has, at the first contact with it; ``found`` None: nothing."""
    if MADE_ANEW not in info or (run_dir / EARLIER).exists():
        return
    earlier: dict[str, Any] = {}
    if found is not None:
        attempts = [dict(attempt) for attempt in found.get("info", {}).get("attempts", [])]
        if attempts and attempts[-1].get("status") == "RUNNING":
            attempts[-1] |= {"status": "DIED", "stop_time": _iso(found.get("heartbeat"))}
        earlier = {
            "start_time": _iso(found.get("start_time")),
            "attempts": attempts,
            "captured_out": found.get("captured_out") or "",
        }
    replace_file(run_dir / EARLIER, json_text(earlier, indent=2).encode())


def add_earlier(
    run_dir: Path, entry: dict[str, Any], info: dict[str, Any], output: bytes
) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Put what was there before what the folder has to add to it."""
    if MADE_ANEW not in info or not (run_dir / EARLIER).exists():
        return entry, info, output
    earlier, anew = json.loads((run_dir / EARLIER).read_bytes()), info[MADE_ANEW]
    if not earlier:
        return entry, info, output
    entry = entry | {"start_time": earlier["start_time"] or entry["start_time"]}
    info = info | {"attempts": earlier["attempts"] + info["attempts"][anew["attempts"] :]}
    return entry, info, earlier["captured_out"].encode() + output[anew["output"] :]


def _iso(moment: Any) -> str | None:
    return moment.isoformat() if moment else None
