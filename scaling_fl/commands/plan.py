"""The command ``scripts/plan.py``: what a run of checked settings will cost."""

import sys
from functools import partial

from scaling_fl.commands.endings import end, show, stage
from scaling_fl.composition.prediction import predict
from scaling_fl.config import Config
from scaling_fl.core.json_text import json_text
from scaling_fl.reporting.folding import fold, width_of
from scaling_fl.reporting.plan import render


def main(config: Config, *, as_json: bool) -> int:
    """Predict and print; returns the exit code."""
    return end(partial(_run, config, as_json=as_json))


def _run(config: Config, *, as_json: bool) -> None:
    prediction = predict(config, stage).to_json()
    show(json_text(prediction) if as_json else fold(render(prediction), width_of(sys.stdout)))
