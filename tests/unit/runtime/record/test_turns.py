"""What clients remember of turns: found by the round, and dropped when it cannot be needed."""

from pathlib import Path

import torch

from scaling_fl.runtime.record.turns import TurnFiles

VALUE = {"residual": torch.tensor([1.0, 2.0])}


def test_a_turn_is_found_by_its_client_and_round(tmp_path: Path) -> None:
    files = TurnFiles(tmp_path / "job")
    files.keep(7, 3, VALUE)
    found = TurnFiles(tmp_path / "job").load(7, 3)
    assert found
    assert torch.equal(found["residual"], VALUE["residual"])
    assert (files.load(7, 2), files.load(6, 3)) == (None, None)


def test_a_client_may_remember_nothing(tmp_path: Path) -> None:
    files = TurnFiles(tmp_path / "job")
    files.keep(0, 1, {})
    assert files.load(0, 1) == {}


def test_a_turn_that_is_taken_again_takes_later_ones_back(tmp_path: Path) -> None:
    files = TurnFiles(tmp_path / "job")
    for number in (1, 2, 3):
        files.keep(0, number, VALUE)
    files.keep(0, 2, {"residual": torch.zeros(1)})
    assert files.load(0, 1)
    assert files.load(0, 2) == {"residual": torch.zeros(1)}
    assert files.load(0, 3) is None


def test_the_last_turn_up_to_the_oldest_round_is_kept(tmp_path: Path) -> None:
    files = TurnFiles(tmp_path / "job")
    for number in (1, 3, 6, 7):
        files.keep(0, number, VALUE)
    files.forget(0, 5)
    assert [number for number in range(9) if files.load(0, number)] == [3, 6, 7]
    files.forget(0, 0)
    assert files.load(0, 3)


def test_a_file_that_was_cut_off_while_it_was_written_is_none(tmp_path: Path) -> None:
    files = TurnFiles(tmp_path / "job")
    files.keep(0, 1, VALUE)
    (tmp_path / "job" / "client-000000" / "round-000002.part").write_bytes(b"half")
    assert files.load(0, 2) is None
    files.keep(0, 2, VALUE)
    assert files.load(0, 2)
