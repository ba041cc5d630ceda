"""A table's rows as conversations: one column for each side, or a column of whole conversations."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling_fl.learning.options import Columns
from scaling_fl.learning.tables.cells import (
    cell_name,
    cell_text,
    group_numbers,
    refuse_missing,
    sorted_names,
)
from scaling_fl.learning.tables.records import Records, columns_of, read_records
from scaling_fl.learning.task import Indices, Split
from scaling_fl.learning.tasks.instruction.conversations import ROLES, Conversations, Turn
from scaling_fl.learning.text.labelled import DataError

RESPONSES = ("output", "response", "completion", "answer")
"""Columns that an answer is looked for in, the first of them that there is."""
INSTRUCTIONS = ("instruction", "prompt", "question")
_TEXTS = ("body", "text")
"""That of Reddit's own files is first."""
_MESSAGES = ("messages", "conversations")
_ROLES: Mapping[str, str] = {
    **{role: role for role in ROLES},
    **{"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"},
}
"""Words for a role, those of ShareGPT among them."""


@dataclass(frozen=True, kw_only=True)
class ColumnRule:
    """Which columns make the instruction, and what is between them; empty ones are left out."""

    instruction: tuple[str, ...] = ()
    """Empty: the columns that there are of usual names."""
    separator: str = "\n"
    is_text: bool = False
    """There is one column, of texts that answer nothing."""


GENERALNLP = ColumnRule(instruction=("instruction",))
MEDICAL = ColumnRule(instruction=("input",))
REDDIT = ColumnRule(is_text=True)
INSTRUCTION_AND_INPUT = ColumnRule(instruction=("instruction", "input"), separator=" ")
"""Finance and code. Source of the three: FlowerTune's apps, as their authors wrote them."""


def read_conversations(
    path: str,
    split: Split,
    rule: ColumnRule,
    columns: Columns,
    *,
    system: str | None,
    client_names: Sequence[str] | None = None,
) -> Conversations:
    """Read a table as conversations; ``client_names`` number the clients in ``columns.client``.

    Raises:
        DataError: a column is missing, or a row is no conversation that ends with an answer.
    """
    present = columns_of(path, split)
    messages = None if rule.is_text else _messages_column(columns, present)
    sides = _text_column if rule.is_text else _sides
    wanted = [messages] if messages else sides(path, rule, columns, present)
    with_owners = client_names is not None and columns.client in present
    group = columns.group if split == "train" else None
    extra = [*[str(columns.client)] * with_owners, *([group] if group else [])]
    records = read_records(path, split, [*wanted, *extra])
    if messages:
        missing = [cell is None for cell in records.cells[messages]]
        refuse_missing(records, missing, messages, "the conversation")
    else:
        whats = ["the text"] if rule.is_text else ["the instruction", "the answer"]
        for column, what in zip((wanted[0], wanted[-1]), whats, strict=False):
            texts = [cell_text(records, row, column) for row in range(len(records))]
            refuse_missing(records, [text is None for text in texts], column, what)
    read = _of_messages if messages else _of_sides
    turns = [read(records, row, wanted, rule.separator, system) for row in range(len(records))]
    owners = _owners(records, str(columns.client), client_names or ()) if with_owners else None
    return Conversations(turns, owners, group_numbers(records, group) if group else None)


def client_names_in(path: str, column: str) -> list[str]:
    """List the different values of a column, sorted; numbers by their value.

    Raises:
        DataError: a row names no client.
    """
    records = read_records(path, "train", [column])
    names = [cell_name(records, row, column) for row in range(len(records))]
    refuse_missing(records, [name is None for name in names], column, "the client")
    return sorted_names(name for name in names if name is not None)


def _owners(records: Records, column: str, names: Sequence[str]) -> Indices:
    numbers = {name: number for number, name in enumerate(names)}
    found = [numbers.get(cell_name(records, row, column) or "", -1) for row in range(len(records))]
    return np.array(found, dtype=np.int64)


def _messages_column(columns: Columns, present: Sequence[str]) -> str | None:
    if columns.messages or columns.instruction or columns.response:
        return columns.messages
    return next((name for name in _MESSAGES if name in present), None)


def _text_column(
    path: str, rule: ColumnRule, columns: Columns, present: Sequence[str]
) -> list[str]:
    found = columns.response or next((name for name in _TEXTS if name in present), None)
    if found is None:
        raise DataError(
            f"{path}: the table must have a column of texts ({', '.join(_TEXTS)}), and has "
            f"{', '.join(present)}; name it by data.response."
        )
    return [found]


def _sides(path: str, rule: ColumnRule, columns: Columns, present: Sequence[str]) -> list[str]:
    """Name the columns of the instruction, and at the end that of the answer."""
    asked = list(columns.instruction or rule.instruction)
    if not asked:
        asked = [name for name in INSTRUCTIONS if name in present][:1]
        asked += [name for name in ("input",) if asked and name in present]
    answer = columns.response or next((name for name in RESPONSES if name in present), None)
    if not asked or answer is None:
        raise DataError(
            f"{path}: the table must have the columns of an instruction "
            f"({', '.join(INSTRUCTIONS)}) and of its answer ({', '.join(RESPONSES)}), or one of "
            f"whole conversations ({', '.join(_MESSAGES)}), and has {', '.join(present)}; name "
            "them by data.instruction and data.response, or data.messages."
        )
    # What a task of FlowerTune takes beside the instruction may be missing in a table.
    return [name for name in asked if name == asked[0] or name in present] + [answer]


def _of_sides(
    records: Records, row: int, wanted: Sequence[str], separator: str, system: str | None
) -> tuple[Turn, ...]:
    *asked, answer = wanted
    said = [cell_text(records, row, column) for column in asked]
    instruction = [Turn("user", separator.join(filter(None, said)))] if asked else []
    return (
        *_system(system),
        *instruction,
        Turn("assistant", cell_text(records, row, answer) or ""),
    )


def _of_messages(
    records: Records, row: int, wanted: Sequence[str], _: str, system: str | None
) -> tuple[Turn, ...]:
    (column,) = wanted
    place, cell = records.place(row, column), records.cells[column][row]
    turns = [_turn(message, place) for message in _parsed(cell, place)]
    while turns and turns[-1].role != "assistant":
        turns.pop()  # nobody answers
    if not any(turn.role == "assistant" for turn in turns):
        raise DataError(
            f"{place}: a conversation must have a turn of the assistant, and has none; add one or "
            "remove the row."
        )
    begins = turns[0].role == "system"
    return (*(() if begins else _system(system)), *turns)


def _parsed(cell: Any, place: str) -> list[Any]:
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            cell = None
    if cell is None or isinstance(cell, str | dict | int | float):
        raise DataError(
            f'{place}: a conversation must be a list such as [{{"role": "user", "content": "..."}},'
            ' {"role": "assistant", "content": "..."}], and is not; correct it.'
        )
    return list(cell)


def _turn(message: Any, place: str) -> Turn:
    said = message if isinstance(message, dict) else {}
    role = _ROLES.get(str(said.get("role", said.get("from"))))
    content = said.get("content", said.get("value"))
    if role is None or not isinstance(content, str):
        raise DataError(
            f"{place}: a turn must have a role ({', '.join(_ROLES)}) and a content, got "
            f"{json.dumps(message, default=str)[:60]}; correct it."
        )
    return Turn(role, content)


def _system(system: str | None) -> tuple[Turn, ...]:
    return (Turn("system", system),) if system else ()
