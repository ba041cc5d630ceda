"""Text that is longer than a terminal is wide is read without broken words."""

import io
import os
import pty

import pytest

from scaling_fl.reporting.folding import fold, width_of


def test_nothing_is_folded_without_a_width_or_where_it_fits() -> None:
    text = "a line of some words\n  name  value"
    assert fold(text, None) == text
    assert fold(text, 20) == text


def test_words_are_kept_whole_and_lines_go_on_indented() -> None:
    assert fold("train_path must name a file, got '/a/b c.csv'; correct the path", 36) == (
        "train_path must name a file, got\n  '/a/b c.csv'; correct the path"
    )


def test_a_path_longer_than_the_line_stays_whole() -> None:
    path = "/folder" * 9
    assert fold(f"see {path} for-more-of it", 30) == f"see\n  {path}\n  for-more-of it"


def test_a_value_stays_in_its_column() -> None:
    assert fold("  bytes in all  12.3 MB (12,346,278 bytes), 51% of 24 MB", 40) == (
        "  bytes in all  12.3 MB (12,346,278\n                bytes), 51% of 24 MB"
    )


def test_parts_between_bars_are_kept_together_where_there_is_room() -> None:
    assert fold("round 1/3 | train loss 0.5, accuracy 0.25 | 4 clients, 1.0 s", 45) == (
        "round 1/3 | train loss 0.5, accuracy 0.25 |\n  4 clients, 1.0 s"
    )


def test_a_command_is_never_folded() -> None:
    commands = "  ./run-local.sh scripts/train_federated.py with demo\n  another command of words"
    text = f"To resume:\n{commands}\nwords and more words"
    assert fold(text, 15) == f"To resume:\n{commands}\nwords and more\n  words"


@pytest.mark.parametrize("width", [20, 40, 79, 80])
def test_folding_changes_nothing_but_spaces(width: int) -> None:
    text = "the job's 'quoted words' | and a bar | name  value  ~/a/path/of/some/length " * 3
    assert fold(text, width).split() == text.split()
    longest = len("~/a/path/of/some/length")
    assert all(len(line) <= max(width, longest + 4) for line in fold(text, width).split("\n"))


def test_only_a_terminal_has_a_width() -> None:
    assert width_of(io.StringIO()) is None
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        os.environ.pop("COLUMNS", None)
        assert width_of(stream) is None  # it says 0
    os.close(ours)
