"""The settings of what else a language model is measured on in the rounds that evaluate."""

from pathlib import PurePosixPath
from typing import Annotated

from scaling_fl.config.base import Section
from scaling_fl.config.conditions import OF_INSTRUCTIONS, WithSet
from scaling_fl.config.types import (
    Count,
    QuestionLayoutName,
    QuestionRule,
    Several,
)

_OF_QUESTIONS = WithSet(".questions", because="it is about questions")


class EvaluationSettings(Section):
    """What a language model is measured on besides its loss on the test data."""

    questions: Annotated[Several, OF_INSTRUCTIONS] = None
    """Files of multiple-choice questions: their accuracies are reported by the files' names."""
    layout: Annotated[QuestionLayoutName, _OF_QUESTIONS] = "plain"
    """Columns of these files: our own (plain; cloze, where no letters stand for the choices) or
    those of a published benchmark."""
    rule: Annotated[QuestionRule, _OF_QUESTIONS] = "likelihood"
    """Take the likeliest choice (likelihood), or compare what the model writes, by FlowerTune's
    rule (generation)."""
    max_questions: Annotated[Count | None, _OF_QUESTIONS] = None
    """Size of a random subset (by data_seed) of each file; None takes everything."""
    max_generated: Annotated[Count | None, OF_INSTRUCTIONS] = None
    """Test rows, drawn by data_seed, that the model answers in its own words, for exact match and
    ROUGE-L; None: none."""

    @property
    def files(self) -> dict[str, str]:
        """Return the files of questions by name."""
        return {question_name(path): path for path in self.questions or ()}


def question_name(path: str) -> str:
    """Return the name of a file without its endings, by which its metrics are named."""
    name = PurePosixPath(path.rstrip("/")).name
    return name.partition(".")[0] or name
