"""Settings for all tests."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run files and tests that are named in this process, for a debugger; folders in several."""
    paths = [Path(argument.split("::")[0]) for argument in config.args]
    return 0 if all(path.is_file() for path in paths) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have one process run all tests that share a server, and one all that share the engine."""
    for item in items:
        if item.get_closest_marker("docker"):
            item.add_marker(pytest.mark.xdist_group("docker"))
        elif item.get_closest_marker("servers"):
            item.add_marker(pytest.mark.xdist_group(_common_to(item.path)))


def _common_to(file: Path) -> str:
    """Name what uses one server: the file, or in runtime/ the folder, whose servers are shared."""
    return "runtime" if "runtime" in file.parts else file.stem


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
