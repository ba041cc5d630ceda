"""Templates: how a conversation becomes one text, and where the answers in it begin.

A template turns a conversation into pairs for its answers, in their order: the text before an
answer, and the text up to the end of that answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling_fl.core.errors import UserError
from scaling_fl.learning.tasks.instruction.conversations import Turn
from scaling_fl.learning.text.labelled import DataError

Pair = tuple[str, str]

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n### Instruction:\n{{ instruction }}\n### Response:"
)
"""FlowerTune's wrapper, of Stanford Alpaca; the answer follows after a space."""
CHAT, OF_ALPACA, TEXT = "chat", "alpaca", "text"


@dataclass(frozen=True)
class Template:
    """A way to write conversations.

    ``is_marked``: its text has the tokens that mark turns; otherwise the tokenizer adds those that
    it begins a text with, and an answer ends with the end-of-text token.
    """

    pairs: Callable[[Sequence[Turn]], list[Pair]]
    prompt: Callable[[Sequence[Turn]], str]
    """Writes a conversation that waits for an answer."""
    source: str
    """What the texts depend on."""
    is_marked: bool = False


def template_of(name: str, tokenizer: Any) -> Template:
    """Return the template ``chat`` of a tokenizer, ``alpaca``, or the one in a Jinja file.

    ``text`` is that of texts that answer nothing: every token is learned.

    Raises:
        UserError: there is none.
    """
    if name == OF_ALPACA:
        return from_jinja(ALPACA, "data.template=alpaca")
    if name == CHAT:
        return _chat(tokenizer)
    if name == TEXT:
        return Template(
            pairs=lambda turns: [("", turns[-1].content)],
            prompt=lambda turns: turns[-1].content if turns else "",
            source=TEXT,
        )
    try:
        return from_jinja(Path(name).expanduser().read_text(encoding="utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"data.template must be chat, alpaca or a Jinja file in UTF-8, got {name} "
            f"({getattr(error, 'strerror', None) or 'not UTF-8'}); check the path."
        ) from None


def from_jinja(source: str, name: str) -> Template:
    """Make a template that writes what is before an answer, from ``instruction`` and ``system``.

    ``turns`` has all turns before the answer, with role and content.

    Raises:
        UserError: it is no Jinja template.
    """
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    try:
        written = environment.from_string(source)
    except jinja2.TemplateError as error:
        raise UserError(
            f"{name} must be a Jinja template, and is not ({error}); correct it."
        ) from None

    def prompt(turns: Sequence[Turn]) -> str:
        asked = [turn.content for turn in turns if turn.role == "user"]
        if "turns" not in source and len(asked) != 1:
            raise DataError(
                f"{name} writes one instruction, and a conversation has {len(asked)}; set "
                "data.template=chat for conversations of several turns."
            )
        system = next((turn.content for turn in turns if turn.role == "system"), "")
        try:
            return written.render(instruction=asked[-1], system=system, turns=turns)
        except jinja2.TemplateError as error:
            raise UserError(f"{name} cannot be written ({error}); correct it.") from None

    def pairs(turns: Sequence[Turn]) -> list[Pair]:
        *before, answer = turns
        text = prompt(before)
        space = "" if text[-1:].isspace() else " "
        return [(text, f"{text}{space}{answer.content}")]

    return Template(pairs, prompt, source)


def _chat(tokenizer: Any) -> Template:
    if not tokenizer.chat_template:
        raise UserError(
            "data.template must be alpaca or a Jinja file for a model whose tokenizer has no chat "
            "template, got chat; choose one of them."
        )

    def write(turns: Sequence[Turn], *, asks: bool) -> str:
        messages = [turn._asdict() for turn in turns]
        try:
            text: str = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=asks
            )
        except Exception as error:  # templates raise errors of their own for roles and orders
            raise DataError(
                f"the model's chat template must write every conversation, and refuses one ({error}"
                "); correct the rows, or give another data.template."
            ) from None
        return text

    def pairs(turns: Sequence[Turn]) -> list[Pair]:
        answers = [n for n, turn in enumerate(turns) if turn.role == "assistant"]
        return [(write(turns[:n], asks=True), write(turns[: n + 1], asks=False)) for n in answers]

    def prompt(turns: Sequence[Turn]) -> str:
        return write(turns, asks=True)

    return Template(pairs, prompt, str(tokenizer.chat_template), is_marked=True)
