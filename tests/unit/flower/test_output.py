"""What a run prints is shown without what Flower and Ray add."""

import pytest

from scaling_fl.flower.output import Filter


def shown(*lines: str) -> list[str]:
    keep = Filter()
    return [text for line in lines if (text := keep(f"{line}\n")) is not None]


@pytest.mark.parametrize(
    "line",
    [
        "\x1b[92mINFO \x1b[0m:      Starting Flower Simulation",
        "\x1b[93mWARNING \x1b[0m:   Since flwr 1.32, default simulated SuperNodes changed.",
        "\x1b[92mINFO \x1b[0m:      ",
        "Using SuperLink: own (127.0.0.1:39555)",
        "Successfully installed small-app to /home/apps/tests.small-app.1.0.0.eaec34bb.",
        "/env/lib/python3.11/site-packages/ray/worker.py:2051: FutureWarning: Tip: In future",
        "Failed to load CPU gemm_4bit_forward from kernels-community: No module named 'kernels'.",
        "  warnings.warn(",
        "\x1b[36m(ClientAppActor pid=25181)\x1b[0m \x1b[93mWARNING \x1b[0m:   Manually ending",
    ],
)
def test_chatter_is_left_out(line: str) -> None:
    assert shown(line) == []


def test_what_the_app_prints_stays_as_it_is() -> None:
    lines = ["round 1/3 | train 0.69", "", "\x1b[1mJob demo\x1b[0m", "INFORMED", "Error: no data."]
    assert shown(*lines) == lines


def test_blank_lines_are_not_piled_up() -> None:
    assert shown("", "", "one", "", "", "two") == ["one", "", "two"]


def test_the_line_of_a_client_is_shown_without_who_printed_it() -> None:
    mark = "\x1b[36m(ClientAppActor pid=7)\x1b[0m "
    assert shown(f"{mark}loading the model") == ["loading the model"]
    again = "\x1b[32m [repeated 5x across cluster] (Ray deduplicates logs)\x1b[0m"
    assert shown(f"{mark}loading the model{again}") == []


TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "/app/small.py", line 27, in main',
    "    raise error",
]


def test_a_traceback_is_shown_whole() -> None:
    lines = ["before", *TRACEBACK, "RuntimeError: a fault", "after"]
    assert "\n".join(shown(*lines)) == "\n".join(lines)


def test_a_sentence_to_the_user_needs_no_traceback() -> None:
    ends = ["scaling_fl.core.errors.UserError: not all nodes came", ""]
    assert shown("before", *TRACEBACK, *ends, "after") == ["before", "", "after"]


def test_the_line_of_a_client_comes_between_those_of_a_traceback() -> None:
    first, *rest = TRACEBACK
    lines = [first, "(ClientAppActor pid=7) loading", *rest, "ValueError: x"]
    assert shown(*lines) == ["loading", "\n".join([*TRACEBACK, "ValueError: x"])]
