"""The command ``scripts/look.py``: what was understood of the data, before anything is trained."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scaling_fl.commands.endings import end, show, stage
from scaling_fl.composition.conversations import LookAtConversations, look_at_conversations
from scaling_fl.composition.inspection import Inspection, inspect
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import Config
from scaling_fl.core.json_text import json_text
from scaling_fl.jobs.job import check_outlives_container
from scaling_fl.learning.tasks.instruction.family import InstructionTuning
from scaling_fl.reporting.look import render
from scaling_fl.reporting.look_conversations import render_conversations
from scaling_fl.reporting.look_figure import draw_lengths_alone, draw_look
from scaling_fl.runtime.storage.base import explained


def main(config: Config, *, out: Path | None, as_json: bool) -> int:
    """Look, print and draw, without ``out`` beside the runs; returns the exit code."""
    chosen = out or Path(config.tracking.runs_dir) / "look.png"
    return end(partial(_run, config, chosen, as_json=as_json))


def _run(config: Config, out: Path, *, as_json: bool) -> None:
    check_outlives_container(out.parent, "--out")
    task = make_task(config)
    if isinstance(task, InstructionTuning):
        conversations = look_at_conversations(config, task, stage)
        _show(conversations, out, render_conversations, draw_lengths_alone, as_json=as_json)
    else:
        _show(inspect(config, stage), out, render, draw_look, as_json=as_json)


def _show(
    look: Inspection | LookAtConversations,
    out: Path,
    write: Callable[[Mapping[str, Any]], str],
    draw: Callable[[Path, Mapping[str, Any], Sequence[int], Sequence[int]], None],
    *,
    as_json: bool,
) -> None:
    found = look.to_json()
    with explained(f"draw {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        draw(out, found, look.train.lengths, look.test.lengths)
    if as_json:
        show(json_text(found | {"figure": str(out)}))
    else:
        show(f"{write(found)}\n\ndrawn: {out}")
