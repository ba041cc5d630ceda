"""The memory of a round's sums: all rounds use it, whatever the sizes that a merge asks for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from scaling_fl.conformance.rounds import LAYOUT, LINEARS, SIZE, some_updates
from scaling_fl.conformance.tried_merge import tried_merge
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.link import Link
from scaling_fl.federation.server import Server
from scaling_fl.methods.merging.merge import Merge, Round, Updates
from scaling_fl.methods.merging.products import on_products
from scaling_fl.methods.server_optimisers import sgd
from scaling_fl.runtime.machines.exchange import GroupExchange

CPU = torch.device("cpu")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[GroupExchange]:
    """A group of this process alone, whose sums are in memory that others could map."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    exchange = GroupExchange(0, 1, [0], CPU, store, one_machine=True)
    yield exchange
    exchange.close()


def num_mapped() -> int:
    """Count the shared sums that this process maps."""
    return Path("/proc/self/maps").read_text().count("memfd:scaling_fl sums")


def of_two_sizes(updates: Updates, round: Round) -> torch.Tensor:
    """Merge as RegMean does: by sums of two other sizes in a round."""
    mean = round.total((u.vector, u.share) for u in updates.again())
    for size in (5, 7):
        ones = round.of_size(size).total((torch.ones(size), u.share) for u in updates.again())
        assert torch.allclose(ones, torch.ones(size))
    return mean


@pytest.mark.parametrize("merge", [of_two_sizes, on_products(tried_merge("ties").make(), 2.0)])
def test_rounds_map_no_more_memory_than_the_first(group: GroupExchange, merge: Merge) -> None:
    server = Server(
        group,
        merge,
        sgd(1.0),
        torch.empty(SIZE),
        links=[Link(SIZE)],
        min_clients=1,
        layout=LAYOUT,
        linears=LINEARS,
    )
    state, mapped = GlobalState(torch.zeros(SIZE)), []
    for seed in range(3):
        updates = some_updates(3, seed)
        replies = (one.reply(Link(SIZE)) for one in updates)
        shares = {one.client: one.share for one in updates}
        state, _ = server.step(state, server.downloads(state), shares, replies)
        mapped.append(num_mapped())
    assert mapped[0] > 0
    assert mapped == [mapped[0]] * 3
