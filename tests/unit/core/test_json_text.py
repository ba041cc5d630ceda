"""JSON that any program can read."""

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest

import scaling_fl
from scaling_fl.core.json_text import json_text, number

WRITERS = {"write_text", "write_bytes", "replace_file", "show", "print"}


def test_what_is_not_finite_is_null_and_the_rest_as_ever() -> None:
    numbers = [math.nan, -math.inf, np.float64("inf"), 0.1 + 0.2]
    value = {"a": numbers, 1: (True, None, 2**70, "Infinity")}
    read = json.loads(json_text(value), parse_constant=pytest.fail)
    assert read["a"] == [None, None, None, 0.30000000000000004]
    assert read["1"] == [True, None, 2**70, "Infinity"]
    plain = {"b": [1, 2.5, {"c": "text"}], "a": (1e-300, False)}
    assert json_text(plain, indent=1, sort_keys=True) == json.dumps(plain, indent=1, sort_keys=True)
    assert [number(0.5), number(7)] == [0.5, 7]
    assert math.isnan(number(None))


def test_nothing_is_written_for_others_by_way_of_json_dumps() -> None:
    """It would write an infinity as Infinity, at which other programs stop reading."""
    found = [
        f"{path.name}:{call.lineno}"
        for path in Path(scaling_fl.__file__).parent.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in WRITERS
        if any("json.dumps(" in ast.unparse(argument) for argument in call.args)
    ]
    assert found == []
