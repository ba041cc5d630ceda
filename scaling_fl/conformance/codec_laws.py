"""The laws of codecs, built-in and of users.

What a built-in codec breaks, and why, stands with the codec (``methods.wire.codecs``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from scaling_fl.composition import own
from scaling_fl.conformance.models import Broken
from scaling_fl.conformance.trial import Law
from scaling_fl.methods.wire.codecs import CODECS, Codec

Draw = Callable[[st.SearchStrategy[Any]], Any]
_SIZES = (1, 2, 0, 63, 64, 65, 127, 129, 1000)
_MOST_NAMED = 6
_EXPONENTS = range(-40, 41)
"""Powers of two that no fp32 code needs to lose anything of."""


@dataclass(frozen=True)
class TriedCodec:
    """A codec under trial."""

    codec: Codec

    @property
    def breaks(self) -> Mapping[str, str]:
        return self.codec.breaks

    def back(self, values: Tensor) -> Tensor:
        """Return what values become on the way."""
        return self.codec.decode(bytes(self.codec.encode(values)), values.numel())


def tried_codec(name: str) -> TriedCodec:
    """Return a codec of the table or one of the user.

    Raises:
        UserError: the codec of the user cannot be found, or is none.
    """
    found = own.codec(name, "the codec")
    return TriedCodec(found if isinstance(found, Codec) else CODECS[found])


@dataclass(frozen=True)
class CodecCase:
    """Values to encode, tenths from -2 to 2, and what else a law draws."""

    values: Tensor
    seed: int
    exponent: int
    drawn: tuple[int, ...]

    def __str__(self) -> str:
        named = [f"{value:.3g}" for value in self.values[:_MOST_NAMED].tolist()]
        more = self.values.numel() - len(named)
        return (
            f"{self.values.numel()} values: {', '.join(named + [f'and {more} more'] * (more > 0))}"
        )


@st.composite
def codec_cases(draw: Draw) -> CodecCase:
    count = draw(st.sampled_from(_SIZES) | st.integers(0, 200))
    seed, exponent = draw(st.integers(0, 999)), draw(st.sampled_from(_EXPONENTS))
    rng = torch.Generator().manual_seed(seed)
    values = torch.randint(-20, 21, (count,), generator=rng) / 10
    return CodecCase(values, seed, exponent, (count, seed, exponent))


def _length(tried: TriedCodec, case: CodecCase) -> None:
    code = bytes(tried.codec.encode(case.values))
    promised = tried.codec.num_bytes(case.values.numel())
    if len(code) != promised:
        raise Broken(f"the code has {len(code)} bytes, and num_bytes says {promised}")


def _shape(tried: TriedCodec, case: CodecCase) -> None:
    before = case.values.clone()
    code = bytes(tried.codec.encode(case.values))
    if not torch.equal(case.values, before):
        raise Broken("encoding writes to the values")
    at_hand = torch.full_like(case.values, 7.0)
    tried.codec.decode(code, len(at_hand), at_hand)
    _same(at_hand, tried.codec.decode(code, len(at_hand)), "in memory that held 7")


def _repeat(tried: TriedCodec, case: CodecCase) -> None:
    code = bytes(tried.codec.encode(case.values))
    tried.codec.encode(-3 * case.values)
    if bytes(tried.codec.encode(case.values)) != code:
        raise Broken("after a code of other values, the code is another one")


def _error(tried: TriedCodec, case: CodecCase) -> None:
    allowed = _largest(case.values) * (tried.codec.error or 0.0)
    found = _largest(tried.back(case.values) - case.values)
    if found > allowed * (1 + 1e-5):
        raise Broken(f"a value is off by {found:.4g}, and may be by {allowed:.4g}")


def _nearer(tried: TriedCodec, case: CodecCase) -> None:
    lost = float((tried.back(case.values).double() - case.values).norm())
    whole = float(case.values.double().norm())
    if lost > whole * (1 + 1e-6):
        raise Broken(f"the norm of the error is {lost:.4g}, and that of the values {whole:.4g}")


def _again(tried: TriedCodec, case: CodecCase) -> None:
    once = tried.back(case.values)
    _same(tried.back(once), once, "after a second time")


def _zeros(tried: TriedCodec, case: CodecCase) -> None:
    zeros = torch.zeros_like(case.values)
    _same(tried.back(zeros), zeros, "for a 0")


def _magnitude(tried: TriedCodec, case: CodecCase) -> None:
    factor = 2.0**case.exponent
    _same(tried.back(factor * case.values), factor * tried.back(case.values), "of the larger ones")


def _not_finite(tried: TriedCodec, case: CodecCase) -> None:
    for bad in (torch.nan, torch.inf, -torch.inf):
        values = torch.cat([case.values, torch.tensor([bad])])
        try:
            tried.codec.encode(values)
        except ValueError:
            continue
        raise Broken(f"{bad} is encoded")


def _hostile(tried: TriedCodec, case: CodecCase) -> None:
    count = case.values.numel()
    length = tried.codec.num_bytes(count)
    rng = np.random.default_rng(case.seed)
    codes = [rng.bytes(length), b"\xff" * length, b"\x7f" * length, b"\x80" * length]
    for code in codes:
        try:
            found = tried.codec.decode(code, count)
        except ValueError:
            continue
        if not found.isfinite().all():
            raise Broken(f"the bytes {code[:8].hex()}... decode to a value that is not finite")
    for code in (bytes(length + 1), bytes(length)[1:] if length else b"\0"):
        try:
            tried.codec.decode(code, count)
        except ValueError:
            continue
        raise Broken(f"{len(code)} bytes are decoded, and {length} make a code")


def _same(found: Tensor, expected: Tensor, how: str) -> None:
    if not torch.equal(found, expected):
        at = int((found != expected).nonzero()[0])
        raise Broken(f"value {at} is {found[at]:.9g} {how}, and must be {expected[at]:.9g}")


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def laws_of(tried: TriedCodec) -> list[Law[TriedCodec]]:
    """List the laws that a codec can keep or break: the error only if one is stated."""
    return [law for law in CODEC_LAWS if law.name != "error" or tried.codec.error is not None]


def _law(
    name: str, promise: str, check: Callable[[TriedCodec, CodecCase], None], choice: str = ""
) -> Law[TriedCodec]:
    def describe(case: CodecCase) -> str:
        chosen = choice.format(case.exponent)
        return f"{case}\n{chosen}" if choice else str(case)

    return Law(name, promise, check, lambda tried: codec_cases(), describe)


CODEC_LAWS = [
    _law("length", "a code is as long as num_bytes says", _length),
    _law("memory", "decoding writes to all of its memory", _shape),
    _law("repeat", "equal values have equal codes at any time", _repeat),
    _law("error", "no value is off by more than is stated", _error),
    _law("nearer", "the code is better than to send nothing", _nearer),
    _law("again", "what was decoded is encoded without a loss", _again),
    _law("zeros", "zeros are decoded to zeros", _zeros),
    _law("magnitude", "twice the values are decoded to twice as much", _magnitude, "times 2 ** {}"),
    _law("not finite", "NaN and infinities are refused", _not_finite, "and one more"),
    _law("hostile", "any bytes are finite values or are refused", _hostile),
]
