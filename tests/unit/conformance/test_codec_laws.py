"""The laws of codecs, on every codec of the table, on a user's, and on wrong ones."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from scaling_fl.conformance.codec_laws import CODEC_LAWS, TriedCodec, laws_of, tried_codec
from scaling_fl.conformance.trial import BROKEN, DECLARED, judge
from scaling_fl.methods.wire import codecs
from scaling_fl.methods.wire.codecs import CODECS, Codec
from tests.own_things import documented

PLAIN = CODECS["none"]


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_of_the_table_keeps_the_laws_but_for_those_that_it_declares(name: str) -> None:
    tried = tried_codec(name)
    verdicts = judge(laws_of(tried), tried, num_cases=20, shrink=False)
    assert [verdict for verdict in verdicts if not verdict.is_good] == []
    assert len(verdicts) == len(CODEC_LAWS)
    declared = {verdict.law for verdict in verdicts if verdict.outcome == DECLARED}
    assert declared == CODECS[name].breaks.keys()


def test_the_example_of_the_documentation_keeps_the_laws_and_states_no_error() -> None:
    names: dict[str, Any] = {"np": np, "torch": torch, "Codec": Codec}
    exec(documented(codecs, "def encode(values):"), names)
    rounded = {"again": "the mean of equal numbers is rounded"}
    tried = TriedCodec(replace(names["signs"], breaks=rounded).with_finite_values())
    verdicts = judge(laws_of(tried), tried, num_cases=20, shrink=False)
    assert len(verdicts) == len(CODEC_LAWS) - 1
    assert [verdict for verdict in verdicts if not verdict.is_good] == []


def _decode_unchecked(raw: Any, out: torch.Tensor) -> None:
    out.copy_(torch.from_numpy(raw.view("<f4").copy()))


def _keeps(raw: Any, out: torch.Tensor) -> None:
    out[1:].copy_(torch.from_numpy(raw.view(np.float32)[1:].copy()))


COUNT = iter(range(1 << 30))
WRONG: dict[str, tuple[Codec, str]] = {
    "length": (replace(PLAIN, num_bytes=lambda count: 4 * count + count % 2), "must take"),
    "memory": (replace(PLAIN, _decode=_keeps), r"value 0 is 7 in memory that held 7"),
    "repeat": (
        replace(PLAIN, _encode=lambda x: PLAIN._encode(x + next(COUNT))),
        "the code is another one",
    ),
    "error": (replace(CODECS["int8"], error=0.001), "a value is off by .*, and may be by"),
    "nearer": (replace(PLAIN, _encode=lambda x: PLAIN._encode(-x)), "the norm of the error is"),
    "again": (replace(PLAIN, _encode=lambda x: PLAIN._encode(x / 2)), "after a second time"),
    "zeros": (replace(PLAIN, _encode=lambda x: PLAIN._encode(x + 1)), "for a 0"),
    "magnitude": (replace(CODECS["fp16"], breaks={}), "and must be"),
    "hostile": (
        replace(PLAIN, _decode=_decode_unchecked),
        "decode to a value that is not finite",
    ),
}


@pytest.mark.parametrize("law", WRONG)
def test_a_wrong_codec_is_told_with_a_small_case(law: str) -> None:
    codec, said = WRONG[law]
    (verdict,) = judge(
        [one for one in CODEC_LAWS if one.name == law], TriedCodec(codec), num_cases=40
    )
    assert verdict.outcome == BROKEN
    assert re.search(said, verdict.found)
    assert re.match(r"[0-3] values: ", verdict.example)


def test_a_codec_that_raises_is_broken_and_its_error_is_shown() -> None:
    def decode(raw: Any, out: torch.Tensor) -> None:
        out[int(raw[0])] = 1.0

    (hostile,) = [law for law in CODEC_LAWS if law.name == "hostile"]
    (verdict,) = judge([hostile], TriedCodec(replace(PLAIN, _decode=decode)), num_cases=20)
    assert (verdict.outcome, verdict.found[:20]) == (BROKEN, "it raises IndexError")
