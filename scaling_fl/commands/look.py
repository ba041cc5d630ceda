"""The command ``scripts/look.py``: what was understood of the data, before anything is trained."""

import json
from functools import partial
from pathlib import Path

from scaling_fl.commands.endings import end, show, stage
from scaling_fl.composition.inspection import inspect
from scaling_fl.config import Config
from scaling_fl.reporting.look import render
from scaling_fl.reporting.look_figure import draw_look
from scaling_fl.runtime.storage.base import explained


def main(config: Config, *, out: Path, as_json: bool) -> int:
    """Look, print and draw; returns the exit code."""
    return end(partial(_run, config, out, as_json=as_json))


def _run(config: Config, out: Path, *, as_json: bool) -> None:
    inspection = inspect(config, stage)
    found = inspection.to_json()
    with explained(f"draw {out}"):
        draw_look(out, found, inspection.train.lengths, inspection.test.lengths)
    if as_json:
        show(json.dumps(found | {"figure": str(out)}))
    else:
        show(f"{render(found)}\n\ndrawn: {out}")
