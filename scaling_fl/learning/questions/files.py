"""Files of questions: JSON, JSONL, CSV, TSV, Parquet, or a data set on disk."""

from scaling_fl.core.seeding import numpy_generator
from scaling_fl.learning.questions.layouts import LAYOUTS, BadCell
from scaling_fl.learning.questions.question import MultipleChoice
from scaling_fl.learning.tables.records import columns_of, read_records
from scaling_fl.learning.text.labelled import DataError


def read_questions(
    path: str, layout: str, *, max_questions: int | None = None, seed: int = 0
) -> list[MultipleChoice]:
    """Read a file's questions in their order, or a random subset of them that ``seed`` chooses.

    Raises:
        DataError: the file cannot be read, or names file, row, column and rule of a bad cell.
    """
    form = LAYOUTS[layout]
    present = set(columns_of(path, "test"))
    columns = [*form.columns, *(name for name in form.optional if name in present)]
    records = read_records(path, "test", columns)
    if not len(records):
        raise DataError(f"{path}: the file must hold a question, and holds none; give another one.")
    questions = []
    for index in range(len(records)):
        try:
            questions.append(form.question({name: records.cells[name][index] for name in columns}))
        except BadCell as error:
            place = records.place(index, error.column)
            raise DataError(f"{place}: the cell {error}; correct the row.") from None
    return _subset(questions, max_questions, seed)


def _subset(
    questions: list[MultipleChoice], max_questions: int | None, seed: int
) -> list[MultipleChoice]:
    if max_questions is None or max_questions >= len(questions):
        return questions
    chosen = numpy_generator(seed, "questions").permutation(len(questions))[:max_questions]
    return [questions[index] for index in sorted(chosen.tolist())]
