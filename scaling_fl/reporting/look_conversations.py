"""Say what was understood of conversations, as text of 80 columns."""

from collections.abc import Mapping
from typing import Any

from scaling_fl.reporting.look import clipped, first_rows, share, shortened, table, wrapped


def render_conversations(look: Mapping[str, Any]) -> str:
    """Write a look (``LookAtConversations.to_json``) as lines for a person."""
    names = ("train", "test")
    head = ["tokens of a conversation", *look["train"]["lengths"]]
    blocks = [
        [line for name in names for line in _split(name, look)],
        _clients(look),
        table(head, [[f"  {name}", *look[name]["lengths"].values()] for name in names]),
        [
            f"Conversations as {shortened(look['model'], 40)} will see them, by the template "
            f"{shortened(look['template'])}:",
            *(line for example in look["examples"] for line in _example(example)),
        ],
    ]
    if look["notes"]:
        blocks.append([line for note in look["notes"] for line in wrapped(f"note: {note}")])
    return "\n\n".join("\n".join(block) for block in blocks)


def _split(name: str, look: Mapping[str, Any]) -> list[str]:
    split = look[name]
    where = shortened(split["path"] or "", 200) or (
        "held out" if name == "test" else f"the data of {look['task_name']}"
    )
    number = split["num_examples"]
    text = f"{name:<6} {number:>9,} conversations: {where}"
    text += f"; {split['num_learned_tokens']:,} tokens are learned"
    if split["num_cut"]:
        whole = number + split["num_left_out"]
        text += f"; max_seq_len={look['max_seq_len']} cuts {share(split['num_cut'], whole)}"
    if split["num_left_out"]:
        text += f"; {split['num_left_out']:,} more have no answer left and are left out"
    return wrapped(text, "         ")


def _clients(look: Mapping[str, Any]) -> list[str]:
    names = look["client_names"] or [str(client) for client in range(len(look["sizes"]))]
    rows = [
        [f"  {shortened(name)}", f"{size:,}", f"{tokens:,}"]
        for name, size, tokens in zip(names, look["sizes"], look["tokens"], strict=True)
    ]
    title = f"{len(rows)} client{'s' * (len(rows) > 1)}"
    lines = table([title, "conversations", "tokens"], first_rows(rows, "clients"))
    return [*lines, *wrapped(f"  {look['partition']}")]


def _example(example: Mapping[str, Any]) -> list[str]:
    return [
        *wrapped(f"  text ({example['num_tokens']} tokens): {clipped(example['text'])}", "    "),
        *wrapped(f"  learned: {clipped(example['learned'])}", "    "),
    ]
