"""The link: what arrives, relative to what, and at how many bytes."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.core.vector import Layout
from scaling_fl.federation import link as link_module
from scaling_fl.federation.link import Direction, Download, Holding, Link
from scaling_fl.methods.wire.codecs import CODECS
from scaling_fl.methods.wire.holding import RankPart, adapter_coordinates
from scaling_fl.methods.wire.payloads import encode
from tests.unit.federation.federations import make_trainer

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


@pytest.mark.parametrize("codec", CODEC_NAMES)
@pytest.mark.parametrize("density", [1.0, 0.25])
def test_an_update_arrives_in_the_memory_of_the_trained_vector(codec: str, density: float) -> None:
    link = Link(Direction(), Direction(codec=codec, density=density))
    state, trained = vector(0), vector(1)
    expected = link.upload_way.send(trained - state, round(SIZE * density)).vector
    update = link.upload(trained, link.download(state, 1), 1)
    assert update.vector is trained
    assert torch.equal(trained, expected)


def test_the_state_is_never_written_to() -> None:
    way = Direction(codec="int8", density=0.5)
    for uploads_state in (False, True):
        state = vector(0)
        trip(Link(way, Direction(codec="nf4"), uploads_state=uploads_state), state, vector(1))
        assert torch.equal(state, vector(0))


# Tiers of smaller ranks, frozen masks, and heads that are always sent


@pytest.fixture(scope="module")
def layout() -> Layout:
    return make_trainer(adapter="dora").layout


HOLDINGS = ["everything", "first", "largest"]


def holding_of(name: str, layout: Layout, rank: int = 2) -> Holding | None:
    if name == "everything":
        return None
    return RankPart(layout, rank, largest=name == "largest")


def links(layout: Layout, codec: str, holding: str) -> Iterator[Link]:
    """Make a link for every way to choose what is sent, less what a configuration refuses."""
    heads, part = ~adapter_coordinates(layout), holding_of(holding, layout)
    for down, up, client_freeze, server_freeze, keep_down, keep_up in product(
        (1.0, 0.25), (1.0, 0.1), *[(False, True)] * 4
    ):
        if client_freeze and keep_up and not keep_down:
            continue
        if down == 1.0 and (client_freeze or server_freeze or keep_down):
            continue
        yield Link(
            Direction(codec=codec, density=down, density_decay=0.5, decay_every=2),
            Direction(codec=codec, density=up),
            client_freeze=client_freeze,
            server_freeze=server_freeze,
            holding=part,
            download_whole=heads if keep_down else None,
            upload_whole=heads if keep_up else None,
        )


@pytest.mark.parametrize("holding", HOLDINGS)
@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_bytes_are_foretold_counted_and_the_length_of_the_payloads(
    codec: str, holding: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads: list[int] = []

    def recorded(values: torch.Tensor, **options: Any) -> bytes:
        payload = encode(values, **options)
        payloads.append(len(payload))
        return payload

    monkeypatch.setattr(link_module, "encode", recorded)
    mask_by = None
    for link, number in product(links(layout, codec, holding), (1, 2, 3)):
        state, trained = vector(number, layout.size), vector(9, layout.size)
        mask_by = vector(1, layout.size) if link.server_freeze and number > 1 else None
        payloads.clear()
        start = link.download(state, number, mask_by=mask_by)
        part = link.holding.of(state) if link.holding else None
        # What would arrive unchanged is not really encoded.
        held = state if part is None else state[part.indices]
        down = payloads.pop() if payloads else len(encode(held))
        update = link.upload(trained, start, number)
        own = trained if start.own is None else trained[start.own]
        up = payloads.pop() if payloads else len(encode(own))
        counted = (start.num_bytes, update.num_bytes)
        assert counted == (down + (part.num_bytes if part else 0), up)
        assert counted == link.num_bytes(layout.size, number)


@pytest.mark.parametrize("holding", HOLDINGS)
def test_what_arrives_is_zero_but_for_what_was_sent(holding: str, layout: Layout) -> None:
    for link, number in product(links(layout, "none", holding), (1, 2)):
        state = vector(number, layout.size)
        start = link.download(state, number, mask_by=vector(1, layout.size))
        held = link.holding.of(state).indices if link.holding else None
        everything = torch.arange(layout.size)
        held = everything if held is None else held
        received = start.received.nonzero().squeeze(1)
        assert torch.equal(start.received[received], state[received])
        assert set(received.tolist()) <= set(held.tolist())
        own = everything if start.own is None else start.own
        assert torch.equal(own, received if link.client_freeze else held)
        trained = start.received.clone()
        trained[own] += vector(5, layout.size)[own]
        update = link.upload(trained.clone(), start, number)
        sent = everything if update.sent is None else update.sent
        assert set(sent.tolist()) <= set(own.tolist())
        assert torch.equal(update.vector.nonzero().squeeze(1), sent)
        assert torch.equal(update.vector[sent], (trained - start.received)[sent])


@pytest.mark.parametrize("holding", HOLDINGS)
def test_heads_arrive_whole_and_the_density_is_that_of_the_rest(
    holding: str, layout: Layout
) -> None:
    heads = ~adapter_coordinates(layout)
    part = holding_of(holding, layout)
    link = Link(
        Direction(density=0.25),
        Direction(density=0.1),
        holding=part,
        download_whole=heads,
        upload_whole=heads,
    )
    size = part.size if part else layout.size
    state, trained = vector(0, layout.size), vector(1, layout.size)
    state[heads] *= 1e-6  # too small to be among the largest
    trained[heads] *= 1e-6
    start, update, _ = trip(link, state, trained)
    rest = size - int(heads.sum())
    assert torch.equal(start.received[heads], state[heads])
    assert int(start.received.count_nonzero()) == int(heads.sum()) + rest // 4
    assert torch.equal(update[heads], (trained - state)[heads])
    assert int(update.count_nonzero()) == int(heads.sum()) + rest // 10


def test_a_frozen_mask_is_that_of_the_state_after_a_dense_first_round() -> None:
    link = Link(Direction(density=0.25), server_freeze=True)
    first, frozen = vector(0), vector(1)
    assert link.download(first, 1).received is first
    mask = masked(frozen, 250) != 0
    for number in (2, 3, 7):
        state = vector(number)
        start = link.download(state, number, mask_by=frozen)
        assert torch.equal(start.received, state * mask)
        assert start.own is None


def test_frozen_clients_change_and_send_exactly_what_they_received() -> None:
    link = Link(Direction(density=0.25), Direction(density=0.1), client_freeze=True)
    state, trained = vector(0), vector(1)
    start, update, _ = trip(link, state, trained)
    own = masked(state, 250).nonzero().squeeze(1)
    assert start.own is not None
    assert torch.equal(start.own, own)
    # The density is a share of the vector, here less than what is owned.
    assert torch.equal(update[own], masked((trained - state)[own], 100))
    assert int(update.count_nonzero()) == 100
    dense = Link(Direction(density=0.25), client_freeze=True)
    assert int(trip(dense, state, trained)[1].count_nonzero()) == 250


# Error feedback


@pytest.mark.parametrize("codec", CODEC_NAMES)
@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("owned", ["everything", "first", "frozen"])
def test_what_arrived_and_the_residual_are_all_that_was_sent(
    codec: str, density: float, owned: str, layout: Layout
) -> None:
    """The sum telescopes, whatever the client owns from round to round."""
    link = Link(
        Direction(density=0.5 if owned == "frozen" else 1.0),
        Direction(codec=codec, density=density),
        error_feedback=True,
        client_freeze=owned == "frozen",
        holding=holding_of("first" if owned == "first" else "everything", layout),
    )
    arrived, wanted = (torch.zeros(layout.size, dtype=torch.float64) for _ in range(2))
    residual = None
    for number in range(1, 31):
        start = link.download(vector(number % 3, layout.size), number)
        update = torch.zeros(layout.size)
        own = slice(None) if start.own is None else start.own
        update[own] = vector(50, layout.size)[own]
        wanted += update
        sent = link.upload_update(update, start, number, residual)
        arrived += sent.vector
        residual = sent.residual
        assert residual is not None
    scale = float(residual.abs().max() + arrived.abs().max())
    assert float((arrived + residual - wanted).abs().max()) < 30 * 2.0**-24 * scale
    if density < 1 and owned != "frozen":  # all had their turn, those of small updates too
        assert int(arrived.count_nonzero()) > 3 * density * layout.size


@pytest.mark.parametrize("codec", ["nf4", "bf16"])
def test_uploaded_states_feed_back_too(codec: str) -> None:
    link = Link(
        Direction(codec=codec), Direction(codec=codec), uploads_state=True, error_feedback=True
    )
    decoded, trained_to, residual = torch.zeros(SIZE).double(), torch.zeros(SIZE).double(), None
    for number in range(1, 21):
        state, trained = vector(number), vector(100 + number)
        start = link.download(state, number)
        trained_to += trained
        sent = link.upload(trained, start, number, residual)
        decoded += sent.vector.double() + state
        residual = sent.residual
        assert residual is not None
    assert torch.allclose(decoded + residual, trained_to, rtol=0, atol=1e-4)
    assert 0 < float(residual.abs().max()) < 0.5  # it does not pile up


@pytest.mark.parametrize("codec", ["none", "nf4"])
def test_a_residual_is_handed_in_and_out_and_never_written_to(codec: str) -> None:
    link = Link(Direction(), Direction(codec=codec, density=0.25), error_feedback=True)
    residual = vector(3)
    start = link.download(vector(0), 1)
    update = link.upload(vector(1), start, 1, residual)
    assert torch.equal(residual, vector(3))
    total = (vector(1) - vector(0)) + vector(3)
    assert update.residual is not None
    assert torch.equal(update.residual, total - update.vector)
    if codec == "none":
        assert torch.equal(update.vector, masked(total, 250))


def test_without_anything_held_back_all_of_it_is_the_plain_link(layout: Layout) -> None:
    """Law 3: neutral settings change no bit."""
    state, trained = vector(0, layout.size), vector(1, layout.size)
    _, plain, num_bytes = trip(Link(), state, trained)
    heads = ~adapter_coordinates(layout)
    for neutral in (
        Link(client_freeze=True),
        Link(server_freeze=True),
        Link(error_feedback=True),
        Link(download_whole=heads, upload_whole=heads),
        Link(holding=RankPart(layout, 4)),
    ):
        start, update, same_bytes = trip(neutral, state, trained, 2)
        assert torch.equal(start.received, state)
        assert torch.equal(update, plain)
        assert same_bytes == start.num_bytes == num_bytes
    residual = Link(error_feedback=True).upload(trained.clone(), Link().download(state, 1), 1)
    assert residual.residual is not None
    assert not residual.residual.any()
    assert Link().upload(trained.clone(), Link().download(state, 1), 1).residual is None
