"""Settings for all tests."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.preloaded import ending_the_process

# A busy machine is no defect: what a test takes is limited by pytest-timeout alone.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """End the process that workers are forked from, if a test has needed it."""
    with ending_the_process():
        yield
