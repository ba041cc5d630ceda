"""Files of questions as what a model is measured on."""

from functools import partial
from typing import Any

from scaling_fl.learning.options import QuestionOptions
from scaling_fl.learning.questions import likelihood
from scaling_fl.learning.questions.files import read_questions
from scaling_fl.learning.questions.flowertune import FlowerTune
from scaling_fl.learning.questions.question import MultipleChoice
from scaling_fl.learning.questions.reading import MOST_AT_ONCE
from scaling_fl.learning.task import Measurement


def load_questions(
    options: QuestionOptions, tokenizer: Any, *, max_seq_len: int, seed: int
) -> list[Measurement]:
    """Read and tokenise each file of questions, or a random subset of it that ``seed`` chooses.

    Raises:
        DataError: a file is not what its layout says.
        InputError: a question cannot be asked within ``max_seq_len`` tokens.
    """
    measure = _by_likelihood if options.rule == "likelihood" else _by_generation
    found = []
    for name, path in options.questions.items():
        questions = read_questions(
            path, options.layout, max_questions=options.max_questions, seed=seed
        )
        found.append(measure(name, questions, options.layout, tokenizer, max_seq_len))
    return found


def _by_likelihood(
    name: str, questions: list[MultipleChoice], layout: str, tokenizer: Any, max_seq_len: int
) -> Measurement:
    encoded = likelihood.encode_questions(questions, tokenizer, max_seq_len=max_seq_len)

    def metrics(counts: Any, detailed: bool) -> dict[str, float]:
        return likelihood.metrics(counts, encoded, detailed=detailed)

    count = partial(likelihood.count, num_subjects=len(encoded.subjects))
    note = _note(name, encoded.num_cut, max_seq_len)
    size = likelihood.num_counts(encoded)
    return Measurement(encoded, size, count, metrics, name, note, MOST_AT_ONCE)


def _by_generation(
    name: str, questions: list[MultipleChoice], layout: str, tokenizer: Any, max_seq_len: int
) -> Measurement:
    exam = FlowerTune(questions, layout, tokenizer, max_seq_len)

    def metrics(counts: Any, detailed: bool) -> dict[str, float]:
        return exam.metrics(counts, detailed=detailed)

    note = _note(name, exam.examples.num_cut, max_seq_len)
    return Measurement(
        exam.examples, exam.num_counts, exam.count, metrics, name, note, MOST_AT_ONCE
    )


def _note(name: str, num_cut: int, max_seq_len: int) -> str:
    if not num_cut:
        return ""
    return (
        f"{num_cut} question{'s' * (num_cut > 1)} of {name} ha{'ve' if num_cut > 1 else 's'} more "
        f"than max_seq_len={max_seq_len} tokens and lose{'s' * (num_cut == 1)} the beginning"
    )
