"""What a client of a smaller rank holds of an adapter, against a loop over components."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from scaling_fl.core.vector import Layout
from scaling_fl.methods.pairs import adapter_coordinates
from scaling_fl.methods.wire.holding import RankHolding, magnitude_coordinates

RANK = 8


def layout(
    *, layers: int = 3, rank: int = RANK, magnitudes: bool = False, freeze_a: bool = False
) -> Layout:
    """Describe an adapter of layers of different sizes, and a head, named as PEFT names them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        prefix = f"encoder.{layer}.query"
        if not freeze_a:
            shapes[f"{prefix}.lora_A.default.weight"] = (rank, 5 + layer)
        shapes[f"{prefix}.lora_B.default.weight"] = (4 + layer, rank)
        if magnitudes:
            shapes[f"{prefix}.lora_magnitude_vector.default.weight"] = (4 + layer,)
    shapes["classifier.modules_to_save.default.weight"] = (3, 4)
    shapes["classifier.modules_to_save.default.bias"] = (3,)
    return Layout(tuple(shapes), tuple(shapes.values()))


LAYOUTS = {
    "lora": layout(),
    "dora": layout(magnitudes=True),
    "frozen_a": layout(freeze_a=True),
    "frozen_a_dora": layout(magnitudes=True, freeze_a=True),
    "one_pair_of_an_odd_rank": layout(layers=1, rank=9),
}


def vector_of(layout: Layout, seed: int = 0) -> Tensor:
    return torch.randn(layout.size, generator=torch.Generator().manual_seed(seed))


def pairs_of(layout: Layout) -> list[str]:
    return sorted({name.split(".lora_")[0] for name in layout.names if ".lora_" in name})


def components(layout: Layout, prefix: str, vector: Tensor) -> list[float]:
    """Compute the product of the norms of A's row and B's column, component by component."""
    views = layout.views(vector.double())
    a, b = (views.get(f"{prefix}.lora_{x}.default.weight") for x in "AB")
    assert b is not None
    return [
        float(b[:, j].norm()) * (1.0 if a is None else float(a[j].norm()))
        for j in range(b.shape[1])
    ]


def held_by_a_loop(layout: Layout, chosen: dict[str, set[int]]) -> list[int]:
    """List the coordinates of the chosen components and of all that is of no pair, one by one."""
    held = []
    for name, shape, offset in zip(layout.names, layout.shapes, layout.offsets, strict=False):
        prefix = name.split(".lora_")[0]
        for place in range(layout.views(torch.zeros(layout.size))[name].numel()):
            if ".lora_A." in name:
                kept = place // shape[1] in chosen[prefix]
            elif ".lora_B." in name:
                kept = place % shape[1] in chosen[prefix]
            else:
                kept = True
            if kept:
                held.append(offset + place)
    return held


def indices_of(holding: RankHolding, vector: Tensor) -> list[int]:
    indices = holding.coordinates(holding.choose(vector))
    assert indices.dtype == torch.int64
    return indices.tolist()


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_first_components_are_those_of_a_loop(kind: str, rank: int) -> None:
    layout = LAYOUTS[kind]
    holding = RankHolding(layout, rank)
    expected = held_by_a_loop(layout, {prefix: set(range(rank)) for prefix in pairs_of(layout)})
    for seed in (0, 1):
        assert indices_of(holding, vector_of(layout, seed)) == expected
    assert (holding.size, holding.num_bytes) == (len(expected), 0)
    assert holding.choose(vector_of(layout)) == b""


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_largest_components_are_those_of_a_loop(kind: str, rank: int) -> None:
    layout = LAYOUTS[kind]
    holding = RankHolding(layout, rank, largest=True)
    found = []
    for seed in range(5):
        vector = vector_of(layout, seed)
        chosen = {}
        for prefix in pairs_of(layout):
            norms = components(layout, prefix, vector)
            order = sorted(range(len(norms)), key=lambda j: -norms[j])
            chosen[prefix] = set(order[:rank])
        found.append(indices_of(holding, vector))
        assert found[-1] == held_by_a_loop(layout, chosen)
        assert len(found[-1]) == holding.size == RankHolding(layout, rank).size
    assert rank == RANK or len(set(map(tuple, found))) > 1


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_smaller_rank_holds_a_part_of_what_a_larger_one_holds(kind: str, largest: bool) -> None:
    vector = vector_of(LAYOUTS[kind], 3)
    held = [
        set(indices_of(RankHolding(LAYOUTS[kind], rank, largest=largest), vector))
        for rank in range(1, RANK + 1)
    ]
    assert all(small < large for small, large in pairwise(held))


def test_the_whole_rank_holds_everything() -> None:
    for layout in LAYOUTS.values():
        rank = RANK + (layout is LAYOUTS["one_pair_of_an_odd_rank"])
        for largest in (False, True):
            holding = RankHolding(layout, rank, largest=largest)
            assert indices_of(holding, vector_of(layout)) == list(range(layout.size))


@pytest.mark.parametrize("kind", LAYOUTS)
def test_of_equal_components_the_lower_ones_are_held(kind: str) -> None:
    """At first every B is zero, and so is every product."""
    layout = LAYOUTS[kind]
    vector = vector_of(layout)
    for name, view in layout.views(vector).items():
        if ".lora_B." in name:
            view.zero_()
    tied = RankHolding(layout, 3, largest=True)
    assert indices_of(tied, vector) == indices_of(RankHolding(layout, 3), vector)


@pytest.mark.parametrize(("kind", "told"), [("lora", 3), ("one_pair_of_an_odd_rank", 2)])
def test_the_largest_are_told_by_a_bit_for_each_component(kind: str, told: int) -> None:
    holding = RankHolding(LAYOUTS[kind], 2, largest=True)
    assert holding.num_bytes == told  # 3 x 8 and 1 x 9 bits
    assert len(holding.choose(vector_of(LAYOUTS[kind]))) == holding.num_bytes == told


@pytest.mark.parametrize("largest", [False, True])
def test_magnitudes_and_heads_are_always_held(largest: bool) -> None:
    layout = LAYOUTS["dora"]
    held = set(indices_of(RankHolding(layout, 1, largest=largest), vector_of(layout)))
    places = layout.views(torch.arange(layout.size))
    for name, place in places.items():
        if "magnitude" in name or "classifier" in name:
            assert held >= set(place.flatten().tolist())


def test_a_rank_above_the_adapters_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be at most the adapter's 8, got 9\."):
        RankHolding(LAYOUTS["lora"], 9)
    with pytest.raises(ValueError, match=r"at most the adapter's 0, got 1"):
        RankHolding(Layout(("classifier.weight",), ((3, 4),)), 1)


def test_the_vector_is_left_alone() -> None:
    vector = vector_of(LAYOUTS["dora"])
    RankHolding(LAYOUTS["dora"], 2, largest=True).choose(vector)
    assert torch.equal(vector, vector_of(LAYOUTS["dora"]))


def test_the_adapter_is_all_but_heads_and_magnitudes() -> None:
    for layout in LAYOUTS.values():
        marks = layout.views(adapter_coordinates(layout))
        for name, view in marks.items():
            assert view.all() == view.any() == (".lora_A." in name or ".lora_B." in name)
        for name, view in layout.views(magnitude_coordinates(layout)).items():
            assert view.all() == view.any() == ("magnitude" in name)
    assert not adapter_coordinates(Layout(("classifier.weight",), ((3, 4),))).any()


@pytest.mark.parametrize("choice", [b"", b"\xff" * 99, b"\x00"])
def test_a_choice_that_cannot_be_meant_is_refused(choice: bytes) -> None:
    holding = RankHolding(LAYOUTS["lora"], 2, largest=True)
    with pytest.raises(ValueError, match="choice"):
        holding.coordinates(choice)
    damaged = bytes(holding.num_bytes)  # no component of any pair
    with pytest.raises(ValueError, match="2 components of each pair"):
        holding.coordinates(damaged)
