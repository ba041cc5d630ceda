"""The command ``scripts/generate.py``: what a model answers before and after it was trained."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scaling_fl.commands.asking import language_task
from scaling_fl.commands.endings import Misused, end, show, stage
from scaling_fl.composition.federation import choose_device
from scaling_fl.composition.own_models import model_of
from scaling_fl.composition.restored import put, restore_untrained, settings_of
from scaling_fl.config import Config
from scaling_fl.core.errors import InputError
from scaling_fl.core.json_text import json_text
from scaling_fl.learning.questions.generation import (
    Prompts,
    encode_prompts,
    stop_tokens,
    texts_of,
    write,
)
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.reporting.answers import Answered, as_text
from scaling_fl.reporting.folding import width_of
from scaling_fl.runtime.tracking.places import Saved, open_saved

_BATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class AnswersRequest:
    """What was asked for."""

    checkpoint: str
    prompt: list[str]
    prompts: str | None = None
    """A file with one prompt a line."""
    max_tokens: int = 64
    max_seq_len: int | None = None
    model: str | None = None
    device: str | None = None
    client: int | None = None
    node: str | None = None
    """The folder of the job on the client's node, if the client's part of the model is there."""
    json: bool = False


def main(options: Mapping[str, Any]) -> int:
    """Run the command with its parsed options; returns the exit code."""
    return end(partial(_run, AnswersRequest(**options)))


def _run(request: AnswersRequest) -> None:
    with redirect_stdout(sys.stderr):  # what libraries print is no result
        saved, config, answered = answers(request)
    if not request.json:
        show(as_text(answered, width_of(sys.stdout)))
        return
    facts = {
        "checkpoint": saved.where,
        "round": saved.checkpoint.round,
        "digest": saved.checkpoint.digest,
        "model": config.model,
        "max_tokens": request.max_tokens,
        "answers": [each._asdict() for each in answered],
    }
    show(json_text(facts))


def answers(request: AnswersRequest) -> tuple[Saved, Config, list[Answered]]:
    """Have the model of a run answer prompts, as it was before round 1 and as it was saved.

    Raises:
        UserError: with one sentence.
    """
    prompts = _prompts(request)
    stage(f"loading {request.checkpoint}")
    saved = open_saved(request.checkpoint, stage)
    config = settings_of(saved, _changes(request, saved))
    task = language_task(saved, config)
    asked = encode_prompts(
        [task.ask(prompt) for prompt in prompts],
        [request.max_tokens] * len(prompts),
        max_seq_len=config.max_seq_len,
        tokenizer=task.tokenizer,
    )
    if asked.num_cut:
        stage(
            f"{asked.num_cut} of the prompts lose the beginning, because a prompt and its answer "
            f"have at most max_seq_len={config.max_seq_len} tokens; raise --max-seq-len"
        )
    device = choose_device(config.device, 0)
    stage(f"loading model {config.model}")
    trainer = restore_untrained(saved, config, task, device)
    stage("answering before and after the training")
    before = _answer(trainer, asked, task.tokenizer)
    vector = model_of(saved, request.client, saved.checkpoint.vector, node=request.node)
    put(saved, vector, trainer)
    after = _answer(trainer, asked, task.tokenizer)
    return saved, config, [Answered(*row) for row in zip(prompts, before, after, strict=True)]


def _prompts(request: AnswersRequest) -> list[str]:
    found = list(request.prompt)
    if request.prompts:
        try:
            text = Path(request.prompts).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise InputError(
                f"--prompts must name a text file with a prompt a line, got {request.prompts} "
                f"({reason}); check the path."
            ) from None
        found += [line for line in text.splitlines() if line.strip()]
    if not found or not all(prompt.strip() for prompt in found):
        raise Misused(
            "a prompt must be given by --prompt TEXT or in the file of --prompts, and not be empty;"
            " give one."
        )
    return found


def _changes(request: AnswersRequest, saved: Saved) -> dict[str, Any]:
    cpu = "cpu" if saved.checkpoint.config["device"] == "cpu" else "auto"
    given = {"model": request.model, "max_seq_len": request.max_seq_len}
    chosen = {name: value for name, value in given.items() if value is not None}
    return {"device": request.device or cpu, **chosen}


def _answer(trainer: LocalTrainer, prompts: Prompts, tokenizer: Any) -> Sequence[str]:
    """Answer prompts in batches of similar length; returns the answers in the prompts' order."""
    model = trainer.model.eval()
    stop = stop_tokens(model, tokenizer)
    order = np.argsort(-prompts.lengths, kind="stable")
    found = [""] * len(prompts)
    with torch.inference_mode():
        for first in range(0, len(order), _BATCH_SIZE):
            indices = order[first : first + _BATCH_SIZE]
            batch = prompts.batch(indices).to(trainer.vector.device)
            texts = texts_of(write(model, batch, stop), tokenizer)
            for index, text in zip(indices.tolist(), texts, strict=True):
                found[index] = text
    return found
