"""Signs elected by the terms of an exact sum, in one pass: see ``Election``."""

import numpy as np
import torch
from torch import Tensor

from scaling_fl.core.exact_sum import CHUNK, ExactSum, add_integers, as_integer, check_terms

_VOTERS = 8  # as many as a byte has bits
_BYTES = torch.arange(1 << _VOTERS)


class Election:
    """Sums whose terms elect a sign for each coordinate: that of sum(share * vector).

    The terms above 0 are summed a second time, beside all terms: what is left are those below 0. A
    term's own signs are kept as two bits for each coordinate, for which shares to add up later. So
    no vector is read again when the signs are known. ``total`` and ``other`` have one size.
    """

    def __init__(self, total: ExactSum, other: ExactSum) -> None:
        self.total, self.other = total, other
        total.clear()
        other.clear()
        self._shares: list[float] = []
        self._above: list[Tensor] = []
        self._below: list[Tensor] = []

    def add(self, vector: Tensor, share: float) -> None:
        """Add ``share * vector`` (fp32) to ``total``, and what is above 0 to ``other``.

        Raises:
            ValueError: as ``ExactSum.add``.
        """
        if vector.device.type != "cpu":
            check_terms(vector)
        bit = len(self._shares) % _VOTERS
        if bit == 0:
            for votes in (self._above, self._below):
                votes.append(torch.zeros(vector.numel(), dtype=torch.uint8, device=vector.device))
        self._shares.append(share)
        sums = (self.total.integers, self.other.integers, self._above[-1], self._below[-1])
        chunks = zip(vector.split(CHUNK), *(each.split(CHUNK) for each in sums), strict=True)
        for chunk, total, other, above, below in chunks:
            _vote(chunk, bit, above, below)
            terms = self.total.integers_of(chunk, share)
            if terms is not None:
                add_integers(total, terms)
                add_integers(other, terms.clamp_(min=0))

    def close(self) -> None:
        """Write the sum of the terms of the elected sign to ``total``, their shares to ``other``.

        ``total`` and ``other`` have been added up over all workers; the shares are of this worker's
        terms alone. Both are 0 where the sum is 0, and a term that is 0 is of neither sign.
        """
        tables = [self._table(first) for first in range(0, len(self._shares), _VOTERS)]
        for start in range(0, self.total.integers.numel(), CHUNK):
            part = slice(start, start + CHUNK)
            total, other = self.total.integers[part], self.other.integers[part]
            above, below = -total >> 63, total >> 63  # all bits where that sign is elected, or none
            total.sub_(other).bitwise_and_(below).bitwise_or_(other.bitwise_and_(above))
            other.zero_()
            above, below = above.to(torch.uint8), below.to(torch.uint8)
            for positive, negative, table in zip(self._above, self._below, tables, strict=True):
                votes = (positive[part] & above).bitwise_or_(negative[part] & below)
                add_integers(other, table.index_select(0, votes.int()))

    def _table(self, first: int) -> Tensor:
        """Return the sum of the shares (as integers) of each set of eight terms."""
        shares = self._shares[first : first + _VOTERS]
        sums = sum(as_integer(share) * (_BYTES >> bit & 1) for bit, share in enumerate(shares))
        return torch.as_tensor(sums, device=self.total.integers.device)


def _vote(vector: Tensor, bit: int, above: Tensor, below: Tensor) -> None:
    """Set a bit of ``above`` where the vector is above 0, of ``below`` where it is below."""
    if vector.device.type != "cpu":
        above.bitwise_or_((vector > 0).to(torch.uint8) << bit)
        below.bitwise_or_((vector < 0).to(torch.uint8) << bit)
        return
    for compare, votes in ((np.greater, above), (np.less, below)):  # half of torch's time
        marks = compare(vector.numpy(), np.float32(0)).view(np.uint8)
        marks *= np.uint8(1 << bit)
        counted = votes.numpy()
        counted |= marks
