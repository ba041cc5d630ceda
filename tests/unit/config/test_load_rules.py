"""Bases of few bits: with what they are refused, in one sentence each."""

from typing import Any

import pytest

from scaling_fl.config import load_rules, read_config
from tests.unit.config.settings import LORA, merged, problems

TASK: dict[str, Any] = {"task_name": "generalnlp", "model": "tiny"}
BASE = merged(TASK, LORA, {"load": {"bits": 4}})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"load": {"bits": 8}, "adapter": {"kind": "dora"}},
            "load.bits must be another number than 8 with adapter.kind=dora, whose norms PEFT "
            "cannot take of such weights, got 8 with adapter.kind=dora; set load.bits=4 or 16, or "
            "adapter.kind=lora.",
        ),
        (
            {"load": {"bits": 8}, "packing": True, "num_local_steps": 5},
            "packing must be False with a base of 8 bits, in which the texts of a batch decide "
            "together which values are rounded, got True with load.bits=8; drop packing, or set "
            "load.bits=4 or 16.",
        ),
        (
            {"merge": {"method": "exact"}, "num_clients": 2},
            "merge.method must be another one with a base of fewer than 32 bits, which it would "
            "move by less than their precision, got 'exact' with load.bits=4; drop load.bits or "
            "change merge.method.",
        ),
        (
            {"load": {"bits": 16}, "merge": {"method": "stack"}, "num_clients": 2},
            "merge.method must be another one with a base of fewer than 32 bits, which it would "
            "move by less than their precision, got 'stack' with load.bits=16; drop load.bits or "
            "change merge.method.",
        ),
        (
            {"load": {"bits": 5}},
            "load.bits must be one of 4, 8, 16, 32, got 5; give such a value or leave "
            "load.bits at 32.",
        ),
        (
            {"optimiser": "paged_adamw_8bit", "device": "cpu"},
            "optimiser must be another one on the CPU, because it moves moments out of a GPU's "
            "memory, got 'paged_adamw_8bit' with device=cpu; set optimiser=adamw_8bit, or drop "
            "device.",
        ),
    ],
)
def test_the_sentences(change: dict[str, Any], sentence: str) -> None:
    assert problems(merged(BASE, change)) == [sentence]


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_a_base_has_any_of_these_bits_below_an_adapter(bits: int) -> None:
    assert problems(merged(BASE, {"load": {"bits": bits}})) == []


def test_a_task_of_ones_own_may_have_a_base_of_few_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = problems({**BASE, "task_name": "json:loads", "gradient_checkpointing": True})
    assert found == []


@pytest.mark.parametrize(
    ("change", "path"),
    [({"load": {"bits": 4}}, "load.bits"), ({"optimiser": "adamw_8bit"}, "optimiser")],
)
def test_without_bitsandbytes_its_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], path: str
) -> None:
    monkeypatch.setattr(load_rules, "find_spec", lambda name: None)
    (found,) = problems(merged(TASK, LORA, change))
    assert found.startswith(f"{path} must be ")
    assert "without bitsandbytes, got" in found
    assert found.endswith("-e '.[quantised]'` in the folder of the project.")


def test_the_bits_are_part_of_the_identity_and_recomputed_activations_are_not() -> None:
    plain = read_config(merged(TASK, LORA))
    assert read_config(merged(TASK, LORA, {"gradient_checkpointing": True})).identity() == (
        plain.identity()
    )
    assert read_config(BASE).identity() == plain.identity() | {"load.bits": 4}
