"""The link: what arrives, relative to what, and at how many bytes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.federation.link import Direction, Download, Link
from scaling_fl.methods.codecs import CODECS
from scaling_fl.methods.payloads import encode

SIZE = 1000
CODEC_NAMES = sorted(CODECS)


def vector(seed: int = 0, size: int = SIZE) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def masked(values: torch.Tensor, kept: int) -> torch.Tensor:
    """Zero all but the largest magnitudes, by torch's own selection."""
    mask = torch.zeros_like(values)
    mask[torch.topk(values.abs(), kept).indices] = 1.0
    return values * mask


def trip(
    link: Link, state: torch.Tensor, trained: torch.Tensor, round_number: int = 1
) -> tuple[Download, torch.Tensor, int]:
    start = link.download(state, round_number)
    update = link.upload(trained.clone(), start, round_number)
    return start, update.vector, update.num_bytes


def test_a_plain_link_passes_on_the_very_vector() -> None:
    state, trained = vector(0), vector(1)
    start, update, num_bytes = trip(Link(), state, trained)
    assert start.received is state
    assert torch.equal(update, trained - state)
    assert num_bytes == start.num_bytes == len(encode(state))


@pytest.mark.parametrize("codec", CODEC_NAMES)
@pytest.mark.parametrize("density", [1.0, 0.25])
def test_bytes_are_the_length_of_what_is_encoded(codec: str, density: float) -> None:
    state, trained = vector(0), vector(1)
    way = Direction(codec=codec, density=density)
    start, _, num_bytes = trip(Link(way, way), state, trained)
    kept = round(SIZE * density)
    indices = None if kept == SIZE else state.abs().topk(kept).indices.sort().values
    assert start.num_bytes == num_bytes == len(encode(state, codec=codec, indices=indices))


def test_flasc_is_that_of_the_paper() -> None:
    """Mask the state, train, and mask the update relative to the masked state."""
    link = Link(Direction(density=0.25), Direction(density=0.1))
    state, trained = vector(0), vector(1)
    start, update, _ = trip(link, state, trained)
    assert torch.equal(start.received, masked(state, 250))
    assert torch.equal(update, masked(trained - masked(state, 250), 100))
    assert torch.equal(start.state, vector(0))


def test_uploaded_states_have_the_new_state_for_their_mean() -> None:
    """The seed quantises parameters, takes their mean and quantises that for the next download."""
    way = Direction(codec="nf4")
    link = Link(way, way, uploads_state=True)
    state, quantised = vector(0), Link(way).download
    clients = [vector(1), vector(2)]
    updates = [trip(link, state, trained)[1] for trained in clients]
    mean = torch.stack([quantised(trained, 1).received for trained in clients]).mean(0)
    assert torch.allclose(state + torch.stack(updates).mean(0), mean, atol=1e-6)
    assert not torch.equal(mean, torch.stack(clients).mean(0))


def test_the_density_decays_and_the_bytes_with_it() -> None:
    link = Link(Direction(density=0.5, density_decay=0.5, decay_every=2))
    kept = [int(link.download(vector(), r).received.count_nonzero()) for r in (1, 2, 3, 4, 5)]
    assert kept == [500, 500, 250, 250, 125]
    sizes = [link.download(vector(), r).num_bytes for r in (1, 2, 3, 5)]
    assert sizes[0] == sizes[1] > sizes[2] > sizes[3]


@given(codec=st.sampled_from(CODEC_NAMES), density=st.sampled_from([1.0, 0.3]), seed=st.integers(0))
def test_a_vector_that_is_zero_stays_zero(codec: str, density: float, seed: int) -> None:
    link = Link(Direction(), Direction(codec=codec, density=density))
    state = vector(seed % 2**32, 130)
    _, update, _ = trip(link, state, state)
    assert not update.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_what_is_not_finite_stays_so_and_is_counted(bad: float, codec: str) -> None:
    link = Link(Direction(), Direction(codec=codec, density=0.5))
    trained = vector(1)
    trained[7] = bad
    _, update, num_bytes = trip(link, vector(0), trained)
    assert not torch.isfinite(update).all()
    assert num_bytes == trip(link, vector(0), vector(1))[2]


def test_the_state_is_never_written_to() -> None:
    way = Direction(codec="int8", density=0.5)
    for uploads_state in (False, True):
        state = vector(0)
        trip(Link(way, Direction(codec="nf4"), uploads_state=uploads_state), state, vector(1))
        assert torch.equal(state, vector(0))
