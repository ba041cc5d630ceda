"""Fixtures of tests that run real workers."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scaling_fl.core.errors import stop_signals

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the runs of one session share: texts and the cache of tokenised text."""
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(autouse=True)
def noise_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the noise of private runs follows from."""
    monkeypatch.setenv("SCALING_FL_NOISE_SECRET", "k" * 32)


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Give back the handlers that a command takes for itself."""
    handlers = {number: signal.getsignal(number) for number in stop_signals()}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
