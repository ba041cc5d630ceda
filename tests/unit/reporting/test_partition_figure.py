"""The picture of a partition can be drawn for any number of clients and labels."""

from pathlib import Path

import numpy as np
import pytest

from scaling_fl.reporting.partition_figure import DOTS_PER_INCH, draw


def drawn(path: Path, num_clients: int, num_labels: int) -> np.ndarray:
    from matplotlib.image import imread

    counts = np.random.default_rng(0).integers(0, 90, (num_clients, num_labels))
    names = [f"_label {label} with a rather long name" for label in range(num_labels)]
    draw(path, names, counts.tolist(), [1.0] * num_clients)
    return np.asarray(imread(path))


@pytest.mark.parametrize(("num_clients", "num_labels"), [(1, 2), (4, 4), (100, 20), (3, 60)])
def test_a_picture_has_a_row_for_every_client(
    tmp_path: Path, num_clients: int, num_labels: int
) -> None:
    picture = drawn(tmp_path / "partition.png", num_clients, num_labels)
    rows_inches = num_clients * min(0.42, 9.0 / num_clients)
    assert picture.shape[0] > DOTS_PER_INCH * rows_inches
    assert picture.shape[1] == 9 * DOTS_PER_INCH
    colours = np.round(255 * picture[..., :3]).astype(np.int64) @ [1 << 16, 1 << 8, 1]
    assert len(np.unique(colours)) > num_labels
    assert [path.name for path in tmp_path.iterdir()] == ["partition.png"]


def test_very_many_clients_make_a_picture_that_can_still_be_opened(tmp_path: Path) -> None:
    assert drawn(tmp_path / "partition.png", 2000, 3).shape[0] < 5000


def test_clients_without_examples_can_be_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "partition.svg", ["a", "b"], [[0, 0], [0, 0]], [0.0, -0.0])
    assert "-0.00" not in (tmp_path / "partition.svg").read_text()


def test_drawing_leaves_the_global_state_of_matplotlib_alone(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw(tmp_path / "partition.png", ["a", "b"], [[1, 2]], [0.9])
    assert dict(matplotlib.rcParams) == before
