from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.federation.placement import deal


def test_as_many_clients_as_sites_live_each_on_their_own() -> None:
    assert deal([0, 1, 2, 3], [9, 1, 1, 1], sites=[0, 0, 1, 1]) == {0: 0, 1: 0, 2: 1, 3: 1}
    assert deal([1, 3], [9, 1, 1, 1], sites=[0, 1, 0, 1]) == {1: 1, 3: 1}


def test_the_largest_client_goes_first_to_the_least_loaded_worker() -> None:
    placed = deal([0, 1, 2, 3, 4], [10, 6, 5, 3, 2], sites=[0, 1])
    assert placed == {0: 0, 1: 1, 2: 1, 3: 0, 4: 1}


@given(
    st.lists(st.integers(1, 100), min_size=3, max_size=40),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.data(),
)
def test_every_client_gets_a_worker_and_no_worker_is_far_behind(
    work: list[int], sites: list[int], data: st.DataObject
) -> None:
    cohort = sorted(data.draw(st.sets(st.sampled_from(range(len(work))), min_size=1)))
    placed = deal(cohort, work, sites)
    assert sorted(placed) == cohort
    assert set(placed.values()) <= set(sites)
    if len(work) > len(sites):
        loads = {w: sum(work[c] for c in cohort if placed[c] == w) for w in set(sites)}
        # The last client dealt went to the least loaded one, so no gap exceeds one client.
        assert max(loads.values()) - min(loads.values()) <= max(work[c] for c in cohort)
