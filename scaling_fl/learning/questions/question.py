"""A multiple-choice question, whatever file it stood in."""

from dataclasses import dataclass
from string import ascii_uppercase

LETTERS = ascii_uppercase


@dataclass(frozen=True, kw_only=True)
class MultipleChoice:
    """A question, its choices, and the index of the right one."""

    text: str
    choices: tuple[str, ...]
    answer: int
    context: str = ""
    """What is to be read before the question."""
    subject: str = ""
    instruction: str = ""
    """What a model is told to do; it stands before everything else."""
    lettered: bool = True
    """The prompt lists the choices by letter, and a letter is the answer; otherwise the prompt does
    not show them, and an answer is a whole choice."""

    @property
    def answers(self) -> tuple[str, ...]:
        """What a model may answer, in the order of the choices."""
        return tuple(LETTERS[: len(self.choices)]) if self.lettered else self.choices

    @property
    def gold(self) -> str:
        """The right answer."""
        return self.answers[self.answer]

    @property
    def prompt(self) -> str:
        """What comes before an answer and its space, in the words of the harness's MMLU."""
        listed = zip(LETTERS, self.choices, strict=False) if self.lettered else ()
        lines = [
            *([f"{self.instruction.strip()}\n"] if self.instruction else []),
            *([self.context.strip()] if self.context else []),
            self.text.strip(),
            *(f"{letter}. {choice}" for letter, choice in listed),
            "Answer:",
        ]
        return "\n".join(lines)
