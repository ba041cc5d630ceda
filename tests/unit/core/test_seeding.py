from scaling_fl.core.seeding import derive, numpy_generator


def test_streams_differ_in_every_part_of_their_name() -> None:
    seeds = {
        derive(seed, purpose, *indices)
        for seed in (0, 1)
        for purpose in ("order", "dropout")
        for indices in ((1, 2), (2, 1), (12,), (1, 2, 0))
    }
    assert len(seeds) == 16


def test_a_stream_is_the_same_wherever_it_is_drawn() -> None:
    # A golden value: results of finished runs depend on it.
    assert derive(0, "order", 1, 2) == 6705172394705516129
    first = numpy_generator(7, "cohort", 3).integers(0, 2**60, 5)
    again = numpy_generator(7, "cohort", 3).integers(0, 2**60, 5)
    assert first.tolist() == again.tolist()
