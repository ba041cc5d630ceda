"""Settings for all tests."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.mlflow_server import MlflowServer, mlflow_server
from tests.preloaded import ending_the_process

# A busy machine is no defect: what a test takes is limited by pytest-timeout alone.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """End the process that workers are forked from, if a test has needed it."""
    with ending_the_process():
        yield


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server that all tests of MLflow share, each with an experiment of its own."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run files and tests that are named in this process, for a debugger; folders in several."""
    paths = [Path(argument.split("::")[0]) for argument in config.args]
    return 0 if all(path.is_file() for path in paths) else None


class OneProcessForWhatIsShared(LoadScopeScheduling):
    """Deals single tests to the processes, but all that share something dear to one of them.

    The tests of containers share images, and each looks for what it has left on the engine; those
    of MLflow share a server, which takes seconds to start. (The groups of xdist 3.8 have no effect
    with pytest 9.2.)
    """

    def _split_scope(self, nodeid: str) -> str:
        shared = [name for name in ("tests/docker/", "test_mlflow") if name in nodeid]
        return shared[0] if shared else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneProcessForWhatIsShared:
    return OneProcessForWhatIsShared(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """With ``--durations`` say also which files took longest; fixtures are part of a file."""
    num_files = terminalreporter.config.option.durations
    if not num_files:
        return
    seconds = Counter[str]()
    for report in _reports(terminalreporter):
        seconds[report.location[0]] += report.duration
    terminalreporter.write_sep("=", f"slowest {num_files} files, sum {seconds.total():.0f} s")
    for file, duration in seconds.most_common(num_files):
        terminalreporter.write_line(f"{duration:.2f}s {file}")


def _reports(terminalreporter: pytest.TerminalReporter) -> Iterator[pytest.TestReport]:
    for found in terminalreporter.stats.values():
        yield from (report for report in found if isinstance(report, pytest.TestReport))
