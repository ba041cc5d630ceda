"""What of a training table is held out as test data: some of its rows, or some of its clients."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scaling_fl.learning.options import TaskOptions
from scaling_fl.learning.text.labelled import Rows, held_out, training_clients


def trained_by(options: TaskOptions, names: Sequence[str]) -> list[str]:
    """Return those of the clients that train, in their order."""
    if options.test_share is None or not options.holds_out_clients:
        return list(names)
    return training_clients(names, options.test_share, options.data_seed)


def mask_of_test(options: TaskOptions, rows: Rows) -> NDArray[np.bool_]:
    """Mark the rows of a training table that are test data."""
    assert options.test_share is not None
    return held_out(
        rows, options.test_share, options.data_seed, of_clients=options.holds_out_clients
    )
