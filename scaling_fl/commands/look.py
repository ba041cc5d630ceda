"""The command ``scripts/look.py``: what was understood of the data, before anything is trained."""

from functools import partial
from pathlib import Path

from scaling_fl.commands.endings import end, show, stage
from scaling_fl.composition.inspection import inspect
from scaling_fl.config import Config
from scaling_fl.core.json_text import json_text
from scaling_fl.jobs.job import check_outlives_container
from scaling_fl.reporting.look import render
from scaling_fl.reporting.look_figure import draw_look
from scaling_fl.runtime.storage.base import explained


def main(config: Config, *, out: Path | None, as_json: bool) -> int:
    """Look, print and draw, without ``out`` beside the runs; returns the exit code."""
    chosen = out or Path(config.tracking.runs_dir) / "look.png"
    return end(partial(_run, config, chosen, as_json=as_json))


def _run(config: Config, out: Path, *, as_json: bool) -> None:
    check_outlives_container(out.parent, "--out")
    inspection = inspect(config, stage)
    found = inspection.to_json()
    with explained(f"draw {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_look(out, found, inspection.train.lengths, inspection.test.lengths)
    if as_json:
        show(json_text(found | {"figure": str(out)}))
    else:
        show(f"{render(found)}\n\ndrawn: {out}")
