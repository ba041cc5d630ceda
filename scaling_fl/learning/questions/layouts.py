"""The columns of files of questions: our own format, and those of published benchmarks.

A file of our own format has the columns ``question``, ``choices`` (a list of texts; in CSV as JSON)
and ``answer`` (the letter of the right choice, its number from 0, or its text), and may have
``context``, ``subject`` and ``instruction``. ``cais/mmlu`` has these columns as it is published.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scaling_fl.learning.questions.question import LETTERS, MultipleChoice

Cells = Mapping[str, Any]
_SENTIMENTS = ("negative", "neutral", "positive")


class BadCell(Exception):
    """A cell is not what its layout needs; the text is the rule and the value."""

    def __init__(self, column: str, rule: str) -> None:
        super().__init__(rule)
        self.column = column


@dataclass(frozen=True)
class QuestionLayout:
    """How the rows of a file become questions."""

    columns: tuple[str, ...]
    """What a file must have."""
    question: Callable[[Cells], MultipleChoice]
    """Raises BadCell."""
    optional: tuple[str, ...] = ()
    """What it may have besides."""


def _text(row: Cells, column: str) -> str:
    value = row[column]
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise BadCell(column, f"must hold a text, got {_shown(value)}")
    if not value.isascii() and not _is_utf8(value):
        raise BadCell(column, "must be written in UTF-8, and is not")
    return value


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # the readers mark wrong bytes by lone surrogates
        return False
    return True


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _optional_text(row: Cells, column: str) -> str:
    return "" if row.get(column) in (None, "") else _text(row, column)


def _parsed(row: Cells, column: str) -> Any:
    """Return a list or an object, which text files hold as JSON."""
    value = row[column]
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise BadCell(column, f"must hold a list as JSON, got {_shown(value)}") from None


def _list(row: Cells, column: str) -> list[Any]:
    value = _parsed(row, column)
    if not isinstance(value, list):
        raise BadCell(column, f"must hold a list, got {_shown(value)}")
    return value


def _texts(row: Cells, column: str) -> tuple[str, ...]:
    return tuple(_text({column: value}, column) for value in _list(row, column))


Meaning = Callable[[Any, Sequence[str]], int | None]
"""(cell, choices) -> the index of a choice, if the cell can be read so."""


def _by_letter(value: Any, choices: Sequence[str]) -> int | None:
    letter = str(value).strip().upper()
    return LETTERS.index(letter) if len(letter) == 1 and letter in LETTERS else None


def _by_text(value: Any, choices: Sequence[str]) -> int | None:
    return choices.index(value) if value in choices else None


def _from(first: int) -> Meaning:
    """Read a number that counts the choices from ``first``."""

    def by_number(value: Any, choices: Sequence[str]) -> int | None:
        try:
            return int(value) - first if float(value) == int(value) else None
        except (TypeError, ValueError, OverflowError):
            return None

    return by_number


def _answer(row: Cells, column: str, choices: Sequence[str], *meanings: Meaning) -> int:
    value = row[column]
    meanings = () if isinstance(value, bool) else meanings
    found = {index for meaning in meanings if (index := meaning(value, choices)) is not None}
    inside = sorted(index for index in found if 0 <= index < len(choices))
    if not inside:
        raise BadCell(column, f"must name one of the {len(choices)} choices, got {_shown(value)}")
    if len(inside) > 1:
        ways = " and ".join(LETTERS[index] for index in inside)
        raise BadCell(column, f"must name one choice by its letter, got {_shown(value)} for {ways}")
    return inside[0]


def _plain(row: Cells) -> MultipleChoice:
    choices = _texts(row, "choices")
    if not 2 <= len(choices) <= len(LETTERS):
        raise BadCell("choices", f"must hold 2 to {len(LETTERS)} texts, got {len(choices)}")
    return MultipleChoice(
        text=_text(row, "question"),
        choices=choices,
        answer=_answer(row, "answer", choices, _by_letter, _by_text, _from(0)),
        context=_optional_text(row, "context"),
        subject=_optional_text(row, "subject"),
        instruction=_optional_text(row, "instruction"),
    )


def _cloze(row: Cells) -> MultipleChoice:
    return replace(_plain(row), lettered=False)


def _in_columns(text: str, columns: Sequence[str], answer: str, meaning: Meaning) -> QuestionLayout:
    """Describe a file with one column for each choice."""

    def question(row: Cells) -> MultipleChoice:
        choices = tuple(_text(row, column) for column in columns)
        index = _answer(row, answer, choices, meaning)
        subject = _optional_text(row, "subject")
        return MultipleChoice(text=_text(row, text), choices=choices, answer=index, subject=subject)

    return QuestionLayout((text, *columns, answer), question, optional=("subject",))


def _medqa(row: Cells) -> MultipleChoice:
    options = _parsed(row, "options")
    if isinstance(options, dict):  # of GBaker/MedQA-USMLE-4-options
        options = [{"value": options[letter]} for letter in sorted(options)]
    choices = tuple(_option(each) for each in _list({"options": options}, "options"))
    index = _answer(row, "answer_idx", choices, _by_letter)
    return MultipleChoice(text=_text(row, "question"), choices=choices, answer=index)


def _option(option: Any) -> str:
    value = option.get("value") if isinstance(option, dict) else option
    return _text({"options": value}, "options")


def _pubmedqa(row: Cells) -> MultipleChoice:
    choices = ("yes", "no", "maybe")
    return MultipleChoice(
        text=_text(row, "QUESTION"),
        choices=choices,
        answer=_answer(row, "final_decision", choices, _by_text),
        context="\n".join(_texts(row, "CONTEXTS")),
        lettered=False,
    )


def _sentiment(text: str, label: str, names: Sequence[str], of: str) -> QuestionLayout:
    """Describe a file of sentences and the numbers of their sentiments."""

    def question(row: Cells) -> MultipleChoice:
        name = names[_answer(row, label, names, _from(0), _by_text)]
        return _about_sentiment(_text(row, text), name, of)

    return QuestionLayout((text, label), question)


def _fiqa(row: Cells) -> MultipleChoice:
    try:
        score = float(row["sentiment_score"])
    except (TypeError, ValueError):
        shown = _shown(row["sentiment_score"])
        raise BadCell("sentiment_score", f"must hold a number, got {shown}") from None
    name = _SENTIMENTS[(score >= -0.1) + (score >= 0.1)]
    kind = "tweet" if row["format"] == "post" else "news"
    return _about_sentiment(_text(row, "sentence"), name, kind)


def _about_sentiment(text: str, name: str, kind: str) -> MultipleChoice:
    return MultipleChoice(
        text=text,
        choices=_SENTIMENTS,
        answer=_SENTIMENTS.index(name),
        instruction=f"What is the sentiment of this {kind}? "
        "Please choose an answer from {negative/neutral/positive}.",
        lettered=False,
    )


_OWN = ("question", "choices", "answer")
_OWN_OPTIONAL = ("context", "subject", "instruction")

LAYOUTS: dict[str, QuestionLayout] = {
    "plain": QuestionLayout(_OWN, _plain, optional=_OWN_OPTIONAL),
    "cloze": QuestionLayout(_OWN, _cloze, optional=_OWN_OPTIONAL),
    "mmlu": _in_columns("input", "ABCD", "target", _by_letter),
    "medmcqa": _in_columns("question", ("opa", "opb", "opc", "opd"), "cop", _from(0)),
    "careqa": _in_columns("question", ("op1", "op2", "op3", "op4"), "cop", _from(1)),
    "medqa": QuestionLayout(("question", "options", "answer_idx"), _medqa),
    "pubmedqa": QuestionLayout(("CONTEXTS", "QUESTION", "final_decision"), _pubmedqa),
    "fpb": _sentiment("sentence", "label", _SENTIMENTS, "news"),
    "fiqa": QuestionLayout(("sentence", "sentiment_score", "format"), _fiqa),
    "tfns": _sentiment("text", "label", ("negative", "positive", "neutral"), "tweet"),
}
"""The layouts by name. Sources, as data sets of Hugging Face: lukaemon/mmlu, medmcqa,
HPAI-BSC/CareQA, bigbio/med_qa (4 options, source), bigbio/pubmed_qa (labeled fold0 source),
financial_phrasebank, pauri32/fiqa-2018, zeroshot/twitter-financial-news-sentiment."""
