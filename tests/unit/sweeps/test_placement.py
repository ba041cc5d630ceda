"""Runs on the sites of a slot: as many as they had, none idle, none of another slot."""

from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.sweeps.placement import alone, deal_sites, on_sites, threads_of

SITES = st.lists(st.integers(0, 7), unique=True, min_size=1, max_size=8)


@given(SITES, st.integers(1, 8))
def test_every_site_is_dealt_and_every_slot_has_one(sites: list[int], num_slots: int) -> None:
    dealt = deal_sites(sites, num_slots)
    assert len(dealt) == num_slots
    assert all(dealt)
    assert {site for slot in dealt for site in slot} == set(sites)
    if num_slots <= len(sites):
        assert sorted(site for slot in dealt for site in slot) == sorted(sites), "none is shared"


@given(st.lists(st.integers(0, 7), min_size=1, max_size=8), SITES)
def test_a_run_keeps_its_number_of_sites(own: list[int], sites: list[int]) -> None:
    placed = on_sites(own, sites)
    assert len(placed) == len(own), "or a run without num_clients would have other clients"
    assert set(placed) <= set(sites)
    assert len(set(placed)) == min(len(set(own)), len(sites))
    pairs = list(zip(own, placed, strict=True))
    assert all(b == d for a, b in pairs for c, d in pairs if a == c)


def test_without_sites_a_run_stays_where_it_would_be() -> None:
    assert deal_sites([], 2) == [[], []]
    assert on_sites([0, 0, 1], []) == [0, 0, 1]


def test_slots_share_the_cores() -> None:
    assert threads_of(8, 2, 2) == 2
    assert threads_of(1, 2, 2) == 1


def test_a_run_of_a_sweep_is_not_one_machine_of_several() -> None:
    cluster = {"WORLD_SIZE": "2", "RANK": "1", "PET_NNODES": "2", "MASTER_ADDR": "a"}
    cluster |= {"CLUSTER_SPEC": "{}", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "x"}
    kept = {"PATH": "/bin", "RANKING": "1", "SLURM_JOB_ID": "3"}
    assert alone(cluster | kept) == kept
