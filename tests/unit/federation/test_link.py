"""The link: what arrives, relative to what, and at how many bytes."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.core.state import Tensors
from scaling_fl.core.vector import Layout
from scaling_fl.federation.client_end import RESIDUAL, ClientEnd, Received
from scaling_fl.federation.link import Download, Link
from scaling_fl.federation.server_end import ServerEnd
from scaling_fl.methods.pairs import adapter_coordinates
from scaling_fl.methods.wire.codecs import CODECS
from scaling_fl.methods.wire.direction import PLAIN, Direction, Payload
from scaling_fl.methods.wire.holding import Holding, RankHolding
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


CPU = torch.device("cpu")


class Trip(NamedTuple):
    """A way down and back: what the two ends made of it."""

    download: Download
    received: Received
    payload: Payload
    update: torch.Tensor
    sent: torch.Tensor | None
    memory: Tensors


def trip(
    link: Link,
    state: torch.Tensor,
    trained: torch.Tensor,
    round_number: int = 1,
    *,
    mask_by: torch.Tensor | None = None,
    memory: Tensors | None = None,
    over_the_wire: bool = False,
) -> Trip:
    """Send a state down and what was trained back, as objects or as nothing but bytes."""
    server, client, trained = ServerEnd(link), ClientEnd(link), trained.clone()
    sent = server.download(state, round_number, mask_by=mask_by)
    heard = sent
    if over_the_wire:
        heard = Download(
            bytes(sent.choice), Payload.from_bytes(bytes(sent.payload), link.num_held), round_number
        )
    received = client.receive(heard, CPU)
    payload, memory = client.send_trained(trained, received, round_number, memory or {})
    reply = payload
    if over_the_wire:
        reply = Payload.from_bytes(bytes(payload), payload.size)
    update, indices = server.update(reply, sent, state, out=None if over_the_wire else trained)
    return Trip(sent, received, payload, update, indices, memory)


def received_of(
    link: Link, state: torch.Tensor, number: int, mask_by: torch.Tensor | None = None
) -> Received:
    return ClientEnd(link).receive(ServerEnd(link).download(state, number, mask_by=mask_by), CPU)


def test_a_plain_link_passes_on_the_very_vector() -> None:
    state, trained = vector(0), vector(1)
    made = trip(Link(SIZE), state, trained)
    assert made.received.vector is state
    assert torch.equal(made.update, trained - state)
    assert made.payload.num_bytes == made.download.num_bytes == len(encode(state))


@pytest.mark.parametrize("codec", CODEC_NAMES)
@pytest.mark.parametrize("density", [1.0, 0.25])
def test_bytes_are_the_length_of_what_is_encoded(codec: str, density: float) -> None:
    state, trained = vector(0), vector(1)
    way = Direction(codec=codec, density=density)
    made = trip(Link(SIZE, way, way), state, trained)
    kept = round(SIZE * density)
    indices = None if kept == SIZE else state.abs().topk(kept).indices.sort().values
    expected = len(encode(state, codec=codec, indices=indices))
    assert made.download.num_bytes == made.payload.num_bytes == expected


def test_flasc_is_that_of_the_paper() -> None:
    """Mask the state, train, and mask the update relative to the masked state."""
    link = Link(SIZE, Direction(density=0.25), Direction(density=0.1))
    state, trained = vector(0), vector(1)
    made = trip(link, state, trained)
    assert torch.equal(made.received.vector, masked(state, 250))
    assert torch.equal(made.update, masked(trained - masked(state, 250), 100))


def test_uploaded_states_have_the_new_state_for_their_mean() -> None:
    """The seed quantises parameters, takes their mean and quantises that for the next download."""
    way = Direction(codec="nf4")
    link = Link(SIZE, way, way, uploads_state=True)
    state, clients = vector(0), [vector(1), vector(2)]
    updates = [trip(link, state, trained).update for trained in clients]
    mean = torch.stack([received_of(Link(SIZE, way), t, 1).vector for t in clients]).mean(0)
    assert torch.allclose(state + torch.stack(updates).mean(0), mean, atol=1e-6)
    assert not torch.equal(mean, torch.stack(clients).mean(0))


def test_the_density_decays_and_the_bytes_with_it() -> None:
    link = Link(SIZE, Direction(density=0.5, density_decay=0.5, decay_every=2))
    made = [received_of(link, vector(), number) for number in (1, 2, 3, 4, 5)]
    assert [int(m.vector.count_nonzero()) for m in made] == [500, 500, 250, 250, 125]
    sizes = [made[place].num_bytes for place in (0, 1, 2, 4)]
    assert sizes[0] == sizes[1] > sizes[2] > sizes[3]


@given(codec=st.sampled_from(CODEC_NAMES), density=st.sampled_from([1.0, 0.3]), seed=st.integers(0))
def test_a_vector_that_is_zero_stays_zero(codec: str, density: float, seed: int) -> None:
    link = Link(130, PLAIN, Direction(codec=codec, density=density))
    state = vector(seed % 2**32, 130)
    assert not trip(link, state, state).update.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_what_is_not_finite_stays_so_and_is_counted(bad: float, codec: str) -> None:
    link = Link(SIZE, PLAIN, Direction(codec=codec, density=0.5))
    trained = vector(1)
    trained[7] = bad
    made = trip(link, vector(0), trained)
    assert not torch.isfinite(made.update).all()
    assert made.payload.num_bytes == trip(link, vector(0), vector(1)).payload.num_bytes


@pytest.mark.parametrize("codec", CODEC_NAMES)
@pytest.mark.parametrize("density", [1.0, 0.25])
def test_an_update_arrives_in_memory_at_hand(codec: str, density: float) -> None:
    link = Link(SIZE, PLAIN, Direction(codec=codec, density=density))
    state, trained = vector(0), vector(1)
    expected = link.up.send(trained - state, round(SIZE * density)).decode()
    sent = ServerEnd(link).download(state, 1)
    payload, _ = ClientEnd(link).send_trained(trained, ClientEnd(link).receive(sent, CPU), 1, {})
    update, _ = ServerEnd(link).update(payload, sent, state, out=trained)
    assert update is trained
    assert torch.equal(trained, expected)


def test_the_state_is_never_written_to() -> None:
    way = Direction(codec="int8", density=0.5)
    for uploads_state in (False, True):
        state = vector(0)
        link = Link(SIZE, way, Direction(codec="nf4"), uploads_state=uploads_state)
        trip(link, state, vector(1))
        assert torch.equal(state, vector(0))


# Tiers of smaller ranks, frozen masks, and heads that are always sent


@pytest.fixture(scope="module")
def layout() -> Layout:
    return make_trainer(adapter="dora").layout


HOLDINGS = ["everything", "first", "largest"]


def holding_of(name: str, layout: Layout, rank: int = 2) -> Holding | None:
    if name == "everything":
        return None
    return RankHolding(layout, rank, largest=name == "largest")


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
            layout.size,
            Direction(codec=codec, density=down, density_decay=0.5, decay_every=2),
            Direction(codec=codec, density=up),
            client_freeze=client_freeze,
            server_freeze=server_freeze,
            holding=part,
            always_down=heads if keep_down else None,
            always_up=heads if keep_up else None,
        )


@pytest.mark.parametrize("holding", HOLDINGS)
@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_bytes_are_foretold_counted_and_the_length_of_what_travels(
    codec: str, holding: str, layout: Layout
) -> None:
    """And nothing but these bytes is needed for the same to arrive, to the bit."""
    for link, number in product(links(layout, codec, holding), (1, 2, 3)):
        state, trained = vector(number, layout.size), vector(9, layout.size)
        mask_by = vector(1, layout.size) if link.server_freeze and number > 1 else None
        made = trip(link, state, trained, number, mask_by=mask_by)
        down = len(made.download.choice) + len(bytes(made.download.payload))
        counted = (made.download.num_bytes, made.payload.num_bytes)
        assert counted == (down, len(bytes(made.payload))) == link.num_bytes(number)
        wired = trip(link, state, trained, number, mask_by=mask_by, over_the_wire=True)
        assert torch.equal(wired.received.vector, made.received.vector)
        assert torch.equal(wired.update, made.update)
        assert _equal(wired.sent, made.sent)
        assert _equal(wired.received.trainable, made.received.trainable)


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


@pytest.mark.parametrize("holding", HOLDINGS)
def test_what_arrives_is_zero_but_for_what_was_sent(holding: str, layout: Layout) -> None:
    for link, number in product(links(layout, "none", holding), (1, 2)):
        state, everything = vector(number, layout.size), torch.arange(layout.size)
        mask_by = vector(1, layout.size)
        received = received_of(link, state, number, mask_by)
        choice = link.holding.choose(state) if link.holding else b""
        held = link.holding.coordinates(choice) if link.holding else everything
        arrived = received.vector.nonzero().squeeze(1)
        assert torch.equal(received.vector[arrived], state[arrived])
        assert set(arrived.tolist()) <= set(held.tolist())
        trainable = everything if received.trainable is None else received.trainable
        assert torch.equal(trainable, arrived if link.client_freeze else held)
        trained = received.vector.clone()
        trained[trainable] += vector(5, layout.size)[trainable]
        made = trip(link, state, trained, number, mask_by=mask_by)
        sent = everything if made.sent is None else made.sent
        assert set(sent.tolist()) <= set(trainable.tolist())
        assert torch.equal(made.update.nonzero().squeeze(1), sent)
        assert torch.equal(made.update[sent], (trained - received.vector)[sent])


@pytest.mark.parametrize("holding", HOLDINGS)
def test_heads_arrive_whole_and_the_density_is_that_of_the_rest(
    holding: str, layout: Layout
) -> None:
    heads = ~adapter_coordinates(layout)
    part = holding_of(holding, layout)
    link = Link(
        layout.size,
        Direction(density=0.25),
        Direction(density=0.1),
        holding=part,
        always_down=heads,
        always_up=heads,
    )
    size = part.size if part else layout.size
    state, trained = vector(0, layout.size), vector(1, layout.size)
    state[heads] *= 1e-6  # too small to be among the largest
    trained[heads] *= 1e-6
    made = trip(link, state, trained)
    rest = size - int(heads.sum())
    assert torch.equal(made.received.vector[heads], state[heads])
    assert int(made.received.vector.count_nonzero()) == int(heads.sum()) + rest // 4
    assert torch.equal(made.update[heads], (trained - state)[heads])
    assert int(made.update.count_nonzero()) == int(heads.sum()) + rest // 10


def test_a_frozen_mask_is_that_of_the_state_after_a_dense_first_round() -> None:
    link = Link(SIZE, Direction(density=0.25), server_freeze=True)
    first, frozen = vector(0), vector(1)
    assert received_of(link, first, 1).vector is first
    mask = masked(frozen, 250) != 0
    for number in (2, 3, 7):
        state = vector(number)
        received = received_of(link, state, number, frozen)
        assert torch.equal(received.vector, state * mask)
        assert received.trainable is None


def test_frozen_clients_change_and_send_exactly_what_they_received() -> None:
    link = Link(SIZE, Direction(density=0.25), Direction(density=0.1), client_freeze=True)
    state, trained = vector(0), vector(1)
    made = trip(link, state, trained)
    mine = masked(state, 250).nonzero().squeeze(1)
    assert made.received.trainable is not None
    assert torch.equal(made.received.trainable, mine)
    # The density is a share of the vector, here less than what may change.
    assert torch.equal(made.update[mine], masked((trained - state)[mine], 100))
    assert int(made.update.count_nonzero()) == 100
    dense = Link(SIZE, Direction(density=0.25), client_freeze=True)
    assert int(trip(dense, state, trained).update.count_nonzero()) == 250


# Error feedback


@pytest.mark.parametrize("codec", CODEC_NAMES)
@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("trainable", ["everything", "first", "frozen"])
def test_what_arrived_and_the_residual_are_all_that_was_sent(
    codec: str, density: float, trainable: str, layout: Layout
) -> None:
    """The sum telescopes, whatever the client may change from round to round."""
    link = Link(
        layout.size,
        Direction(density=0.5 if trainable == "frozen" else 1.0),
        Direction(codec=codec, density=density),
        error_feedback=True,
        client_freeze=trainable == "frozen",
        holding=holding_of("first" if trainable == "first" else "everything", layout),
    )
    arrived, wanted = (torch.zeros(layout.size, dtype=torch.float64) for _ in range(2))
    memory: Tensors = {}
    for number in range(1, 31):
        state = vector(number % 3, layout.size)
        received = received_of(link, state, number)
        trained = received.vector.clone()
        mine = slice(None) if received.trainable is None else received.trainable
        trained[mine] += vector(50, layout.size)[mine]
        wanted += trained - received.vector
        made = trip(link, state, trained, number, memory=memory)
        arrived += made.update
        memory = made.memory
    residual = memory[RESIDUAL]
    scale = float(residual.abs().max() + arrived.abs().max())
    assert float((arrived + residual - wanted).abs().max()) < 30 * 2.0**-24 * scale
    if density < 1 and trainable != "frozen":  # all had their turn, those of small updates too
        assert int(arrived.count_nonzero()) > 3 * density * layout.size


@pytest.mark.parametrize("codec", ["nf4", "bf16"])
def test_uploaded_states_feed_back_too(codec: str) -> None:
    way = Direction(codec=codec)
    link = Link(SIZE, way, way, uploads_state=True, error_feedback=True)
    decoded, trained_to = torch.zeros(SIZE).double(), torch.zeros(SIZE).double()
    memory: Tensors = {}
    for number in range(1, 21):
        state, trained = vector(number), vector(100 + number)
        trained_to += trained
        made = trip(link, state, trained, number, memory=memory)
        decoded += made.update.double() + state
        memory = made.memory
    assert torch.allclose(decoded + memory[RESIDUAL], trained_to, rtol=0, atol=1e-4)
    assert 0 < float(memory[RESIDUAL].abs().max()) < 0.5  # it does not pile up


@pytest.mark.parametrize("codec", ["none", "nf4"])
def test_a_residual_is_handed_in_and_out_and_never_written_to(codec: str) -> None:
    link = Link(SIZE, PLAIN, Direction(codec=codec, density=0.25), error_feedback=True)
    residual = vector(3)
    made = trip(link, vector(0), vector(1), memory={RESIDUAL: residual})
    assert torch.equal(residual, vector(3))
    total = (vector(1) - vector(0)) + vector(3)
    assert torch.equal(made.memory[RESIDUAL], total - made.update)
    if codec == "none":
        assert torch.equal(made.update, masked(total, 250))


def test_without_anything_held_back_all_of_it_is_the_plain_link(layout: Layout) -> None:
    """Law 3: neutral settings change no bit."""
    size = layout.size
    state, trained = vector(0, size), vector(1, size)
    plain = trip(Link(size), state, trained)
    heads = ~adapter_coordinates(layout)
    for neutral in (
        Link(size, client_freeze=True),
        Link(size, server_freeze=True),
        Link(size, error_feedback=True),
        Link(size, always_down=heads, always_up=heads),
        Link(size, holding=RankHolding(layout, 4)),
    ):
        made = trip(neutral, state, trained, 2)
        assert torch.equal(made.received.vector, state)
        assert torch.equal(made.update, plain.update)
        assert made.payload.num_bytes == made.download.num_bytes == plain.payload.num_bytes
    assert not trip(Link(size, error_feedback=True), state, trained).memory[RESIDUAL].any()
    assert plain.memory == {}
