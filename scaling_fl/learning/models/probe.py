"""A first look at a model: does it classify, by its input alone and by its weights alone?"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scaling_fl.core.errors import UserError

_TEXTS = ["The first of two texts.", "Two"]


def check_answers(
    model: nn.Module, inputs: Mapping[str, Tensor], *, name: str, num_labels: int, what: str
) -> None:
    """Have a classifier answer two inputs as in training, twice with the same dropout.

    ``what`` is what one of these is, such as "a text".

    Raises:
        UserError: the model needs more than that, does not give a logit for each label, answers
            differently the second time, or answers by what it keeps of the inputs in its buffers.
    """
    before = {path: buffer.clone() for path, buffer in model.named_buffers()}
    model.train()
    try:
        with torch.no_grad():
            first, second = (_logits(model, inputs) for _ in range(2))
    except Exception as error:  # whatever a model raises that is made for other inputs
        reason = str(error).strip().split("\n", 1)[0].rstrip(".")
        raise UserError(
            f"model={name} must classify {what} by itself, and fails on one "
            f"({type(error).__name__}: {reason}); choose another model."
        ) from error
    num_inputs = len(next(iter(inputs.values())))
    if first.shape != (num_inputs, num_labels):
        raise UserError(
            f"model={name} must give {what} {num_labels} logits, one for each label, and gives "
            f"{num_inputs} of them logits of the shape {tuple(first.shape)}; choose another model."
        )
    _check_buffers(model, before, inputs, name)
    if not torch.equal(first, second):
        raise UserError(
            f"model={name} must answer {what} twice alike when its dropout is the same, and does "
            "not, so that no run with it could be repeated or resumed; choose another model."
        )
    model.eval()


def _check_buffers(
    model: nn.Module, before: dict[str, Tensor], inputs: Mapping[str, Tensor], name: str
) -> None:
    """Put buffers that training changes back; refuse a model whose answers depend on them."""
    now = dict(model.named_buffers())
    kept = [path for path in now if path in before and not torch.equal(now[path], before[path])]
    if not kept:
        return
    model.eval()
    with torch.no_grad():
        moved = _logits(model, inputs)
        for path in kept:
            now[path].copy_(before[path])
        if not torch.equal(_logits(model, inputs), moved):
            raise UserError(
                f"model={name} must answer by its weights alone, and training changes {len(kept)} "
                f"of its buffers, such as {kept[0]}, which no update carries; choose another "
                "model, or switch that off in its config.json (I-BERT: quant_mode)."
            )


def text_inputs(tokenizer: Any, name: str, max_seq_len: int) -> dict[str, Tensor]:
    """Tokenise and pad two short texts as those of a batch are.

    Raises:
        UserError: the tokenizer makes no tokens of them.
    """
    rows = tokenizer(_TEXTS, truncation=True, max_length=max_seq_len)["input_ids"]
    tokenizer.backend_tokenizer.no_truncation()  # or it would be saved with the tokenizer
    if not all(rows):
        raise UserError(
            f"the tokenizer of model={name} must make tokens of a text, and makes none of "
            f"{_TEXTS[0]!r}; save the right one beside the model."
        )
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        begin = width - len(row) if tokenizer.padding_side == "left" else 0
        ids[number, begin : begin + len(row)] = torch.tensor(row)
        mask[number, begin : begin + len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    torch.manual_seed(0)
    logits: Tensor = model(**inputs).logits
    return logits
