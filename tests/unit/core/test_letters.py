"""A letter comes back from its bytes as it was, or not at all."""

import math

import pytest

from scaling_fl.core.letters import Letter

LETTER = Letter({"round": 3, "rate": 0.1, "loss": None}, {"payload": b"\x00\x01", "choice": b""})


def test_a_letter_comes_back_as_it_was() -> None:
    assert Letter.from_bytes(LETTER.to_bytes()) == LETTER


def test_a_number_that_is_not_finite_becomes_none() -> None:
    assert Letter.from_bytes(Letter({"loss": math.nan}).to_bytes()).facts == {"loss": None}


def test_a_letter_that_was_cut_off_or_continued_is_refused() -> None:
    frame = LETTER.to_bytes()
    for wrong in (*(frame[:size] for size in range(len(frame))), frame + b"\x00"):
        with pytest.raises(ValueError, match=r"letter|Expecting|Unterminated|utf-8|char|double"):
            Letter.from_bytes(wrong)
