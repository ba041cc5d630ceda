"""The optimisers are those of torch and of the papers, and their state is all they know."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from scaling_fl.config.sections import ServerSettings
from scaling_fl.methods import server_optimisers
from scaling_fl.methods.schedules import cosine
from scaling_fl.methods.server_optimisers import SERVER_OPTIMISERS, State, scheduled, sgd, yogi

OPTIONS: dict[str, dict[str, float]] = {
    "sgd": {"momentum": 0.9},
    "adam": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-4},
    "adamw": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-4, "weight_decay": 0.1},
    "adagrad": {"epsilon": 1e-4},
    "yogi": {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-4},
}
NAMES = sorted(OPTIONS)
TORCH: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.3, betas=(0.8, 0.95), eps=1e-4),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.3, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.3, eps=1e-4),
}
SIZE = 1001


@pytest.fixture(autouse=True)
def chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_optimisers, "CHUNK", 300)


def start_and_updates(num_steps: int = 5) -> list[Tensor]:
    """Draw a start and as many updates, of which the third is zero."""
    drawn = torch.randn(6, SIZE, generator=torch.Generator().manual_seed(0))
    drawn[3] = 0.0
    return list(drawn[: num_steps + 1])


def steps(
    name: str, vector: Tensor, updates: list[Tensor], state: State | None = None
) -> tuple[Tensor, State]:
    """Step along the updates; returns where that leads and the state that is left."""
    optimiser = SERVER_OPTIMISERS[name](0.3, **OPTIONS[name])
    state = optimiser.init(vector) if state is None else state
    for update in updates:
        vector, state = optimiser.step(vector, update, state)
    return vector, state


@pytest.mark.parametrize("name", sorted(SERVER_OPTIMISERS))
def test_the_configuration_has_the_options_that_each_optimiser_takes(name: str) -> None:
    parameters = inspect.signature(SERVER_OPTIMISERS[name]).parameters
    taken = set(parameters) - {"learning_rate"}
    if name == "adam":  # which is adamw without it
        taken.remove("weight_decay")
    settings = ServerSettings(optimiser=name, bias_correction=True)
    assert taken == settings.options.keys()
    by_default = ServerSettings(optimiser=name).options  # leaves this choice to the optimiser
    assert by_default.keys() == taken - {"bias_correction"}


def test_sgd_with_learning_rate_1_adds_the_update() -> None:
    vector, update = start_and_updates(1)
    expected = vector + update
    optimiser = sgd(1.0)
    assert torch.equal(optimiser.step(vector, update, optimiser.init(vector))[0], expected)


def test_sgd_without_momentum_has_no_state() -> None:
    assert sgd(0.3, momentum=0.0).init(torch.zeros(3)) == {}


@pytest.mark.parametrize("name", sorted(TORCH))
def test_steps_match_torch_with_the_negative_update_as_gradient(name: str) -> None:
    vector, *updates = start_and_updates()
    reference = vector.clone()
    optimiser = TORCH[name]([reference])
    for update in updates:
        reference.grad = -update
        optimiser.step()
    assert torch.allclose(steps(name, vector, updates)[0], reference, rtol=1e-6, atol=1e-7)


def test_plain_sgd_matches_torch_bitwise() -> None:
    vector, *updates = start_and_updates()
    reference = vector.clone()
    torch_sgd = torch.optim.SGD([reference], lr=0.3)
    optimiser = sgd(0.3)
    for update in updates:
        reference.grad = -update
        torch_sgd.step()
        vector, _ = optimiser.step(vector, update, {})
    assert torch.equal(vector, reference)


def test_yogi_by_hand() -> None:
    vector = torch.tensor([1.0, 1.0])
    optimiser = yogi(0.5, beta1=0.5, beta2=0.75, epsilon=0.1)
    state = optimiser.init(vector)
    assert state["square"].tolist() == pytest.approx([0.01, 0.01])
    vector, state = optimiser.step(vector, torch.tensor([2.0, 0.0]), state)
    # mean 1; 0.01 < 4, so the square grows by a quarter of 4; of the zero nothing comes
    assert state["mean"].tolist() == [1.0, 0.0]
    assert state["square"].tolist() == pytest.approx([1.01, 0.01])
    assert vector.tolist() == pytest.approx([1 + 0.5 / (1.01**0.5 + 0.1), 1.0])
    before = vector[0].item()
    vector, state = optimiser.step(vector, torch.tensor([-0.4, 0.0]), state)
    # mean 0.3; 1.01 > 0.16, so the square shrinks by a quarter of 0.16
    assert state["mean"][0].item() == pytest.approx(0.3)
    assert state["square"][0].item() == pytest.approx(0.97)
    assert vector[0].item() == pytest.approx(before + 0.5 * 0.3 / (0.97**0.5 + 0.1))


RATE, BETA1, BETA2 = 0.1, 0.9, 0.99
NEW_SQUARE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "adam": lambda v, u2: BETA2 * v + (1 - BETA2) * u2,
    "yogi": lambda v, u2: v - (1 - BETA2) * u2 * torch.sign(v - u2),
}


def fedopt(
    name: str, updates: list[Tensor], *, tau: float, square: float, power: int | None = None
) -> Tensor:
    """Step from 0 in fp64 by arXiv 2003.00295, algorithm 2, and by Flower's FedAdam and FedYogi.

    The square starts at ``square``: tau**2 in the paper, 0 in Flower. ``power`` is that of the
    betas in the correction of the first step; None: there is no correction.
    """
    x = mean = torch.zeros(SIZE, dtype=torch.float64)
    squares = torch.full_like(x, square)
    for update in (u.double() for u in updates):
        mean = BETA1 * mean + (1 - BETA1) * update
        squares = NEW_SQUARE[name](squares, update.square())
        rate = RATE
        if power is not None:
            rate = RATE * (1 - BETA2**power) ** 0.5 / (1 - BETA1**power)
            power += 1
        x = x + rate * mean / (squares.sqrt() + tau)
    return x


def ours(name: str, updates: list[Tensor], *, tau: float, correct: bool, **start: Any) -> Tensor:
    """Step from 0 by our optimiser; ``start`` replaces values that its state starts with."""
    optimiser = SERVER_OPTIMISERS[name](
        RATE, beta1=BETA1, beta2=BETA2, epsilon=tau, bias_correction=correct
    )
    vector = torch.zeros(SIZE)
    state = optimiser.init(vector)
    for key, value in start.items():
        state[key].fill_(value)
    for update in updates:
        vector, state = optimiser.step(vector, update, state)
    return vector.double()


def differ(one: Tensor, other: Tensor) -> float:
    return float(torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(other))


@pytest.mark.parametrize("name", sorted(NEW_SQUARE))
def test_without_bias_correction_the_steps_are_those_of_the_paper_of_fedopt(name: str) -> None:
    tau = 1e-3
    updates = [u * tau for u in start_and_updates()[1:]]  # so small that the square's start counts
    paper, flower = (fedopt(name, updates, tau=tau, square=square) for square in (tau**2, 0.0))
    assert differ(ours(name, updates, tau=tau, correct=False), paper) < 1e-6
    assert differ(ours(name, updates, tau=tau, correct=False, square=0.0), flower) < 1e-6
    assert differ(paper, flower) > 0.1


def test_fedadam_of_flower_corrects_its_first_step_as_a_second_one() -> None:
    tau, updates = 1e-9, start_and_updates()[1:]
    by_power = {n: fedopt("adam", updates, tau=tau, square=0.0, power=n) for n in (1, 2)}
    assert differ(ours("adam", updates, tau=tau, correct=True), by_power[1]) < 1e-6
    assert differ(ours("adam", updates, tau=tau, correct=True, step=1), by_power[2]) < 1e-6
    assert differ(by_power[1], by_power[2]) > 0.1


def test_fedadagrad_of_flower_is_ours() -> None:
    tau, updates = 1e-3, start_and_updates()[1:]
    optimiser = SERVER_OPTIMISERS["adagrad"](RATE, epsilon=tau)
    vector, x = torch.zeros(SIZE), torch.zeros(SIZE, dtype=torch.float64)
    state, squares = optimiser.init(vector), torch.zeros_like(x)
    for update in updates:
        vector, state = optimiser.step(vector, update, state)
        squares += update.double() ** 2
        x += RATE * update.double() / (squares.sqrt() + tau)
    assert differ(vector.double(), x) < 1e-6


def test_a_corrected_yogi_starts_as_adam() -> None:
    first = start_and_updates()[1:2]  # in a first step, both squares are a share of u**2
    yogi, adam = (ours(name, first, tau=1e-3, correct=True) for name in ("yogi", "adam"))
    assert differ(yogi, adam) < 1e-6
    assert differ(yogi, RATE * first[0].sign()) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_a_state_that_was_copied_midway_continues_bitwise(name: str) -> None:
    start, *updates = start_and_updates()
    whole, _ = steps(name, start, updates)
    parts, midway = steps(name, start, updates[:2])
    copied = {key: value.clone() for key, value in midway.items()}
    parts, _ = steps(name, parts, updates[2:], copied)
    assert torch.equal(parts, whole)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_matters(name: str) -> None:
    forgotten, *updates = start_and_updates(2)
    known, _ = steps(name, forgotten, updates)
    for update in updates:
        forgotten, _ = steps(name, forgotten, [update])
    assert not torch.allclose(known, forgotten, rtol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_fp32_as_long_as_the_vector_but_for_the_number_of_steps(name: str) -> None:
    vector, *updates = start_and_updates()
    state = dict(steps(name, vector, updates)[1])
    if "step" in state:
        step = state.pop("step")
        assert (step.dtype, int(step)) == (torch.int64, 5)
    assert all(value.dtype == torch.float32 for value in state.values())
    assert all(value.shape == vector.shape for value in state.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_step_writes_to_nothing_that_it_is_given(name: str) -> None:
    vector, *updates = start_and_updates(2)
    vector, state = steps(name, vector, updates[:1])
    given = [vector, updates[1], *state.values()]
    before = [tensor.clone() for tensor in given]
    steps(name, vector, updates[1:], state)
    assert all(torch.equal(tensor, old) for tensor, old in zip(given, before, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_coordinates_without_any_update_stay_finite(name: str) -> None:
    vector, _ = steps(name, torch.zeros(SIZE), [torch.zeros(SIZE)] * 3)
    assert torch.equal(vector, torch.zeros(SIZE))


@pytest.mark.parametrize("name", ["adam", "adamw", "adagrad", "yogi"])
def test_tiny_epsilons_and_tiny_updates_stay_finite(name: str) -> None:
    options: dict[str, Any] = OPTIONS[name] | {"epsilon": 1e-16}
    optimiser = SERVER_OPTIMISERS[name](1.0, **options)
    vector = torch.zeros(4)
    state = optimiser.init(vector)
    for scale in (1e-25, 1e-18, 1e-10, 0.0):
        vector, state = optimiser.step(vector, torch.full((4,), scale), state)
    assert torch.isfinite(vector).all()
    assert (vector.abs() < 100).all()


@pytest.mark.parametrize("name", sorted(TORCH))
def test_a_schedule_is_torchs(name: str) -> None:
    """Torch's AdamW decays by the rate of the step, too."""
    num_steps = 5
    start, *updates = start_and_updates(num_steps)
    parameter = torch.nn.Parameter(start.clone())
    theirs = TORCH[name]([parameter])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, num_steps, eta_min=0.1)
    ours = scheduled(
        lambda rate: SERVER_OPTIMISERS[name](rate, **OPTIONS[name]), cosine(0.3, 0.1, num_steps)
    )
    vector, state = start, ours.init(start)
    for update in updates:
        parameter.grad = -update
        theirs.step()
        schedule.step()
        vector, state = ours.step(vector, update, state)
    torch.testing.assert_close(vector, parameter.detach(), rtol=1e-5, atol=1e-6)
    assert int(state["steps"]) == num_steps
    assert not torch.allclose(vector, steps(name, start, updates)[0], atol=1e-3)
