"""Flower's programs are given an environment in which none of its surprises is on."""

import os
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from scaling_fl.core.errors import UserError
from scaling_fl.flower import programs
from scaling_fl.flower.programs import MARK, check_installed, environment

HOME = Path("/home/of/flower")


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    def version(package: str) -> str:
        if package not in versions:
            raise PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(programs, "version", version)


def test_the_surprises_are_off_and_the_rest_is_the_callers() -> None:
    given = {"HF_HOME": "/models", "FLWR_TELEMETRY_ENABLED": "1", "FLWR_HOME": "/theirs"}
    found = environment(HOME, "m", given | {"RAY_ADDRESS": "auto"})
    assert found["HF_HOME"] == "/models"
    assert (found["FLWR_HOME"], found[MARK]) == (str(HOME), "m")
    assert found["FLWR_TELEMETRY_ENABLED"] == found["RAY_USAGE_STATS_ENABLED"] == "0"
    assert found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert "RAY_ADDRESS" not in found


def test_flower_finds_its_own_programs_first_and_no_proxy_is_asked() -> None:
    found = environment(HOME, "m", {"PATH": "/usr/bin", "no_proxy": "intra"})
    assert found["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/usr/bin"
    assert found["no_proxy"] == "intra,127.0.0.1,localhost"
    assert found["NO_PROXY"] == "127.0.0.1,localhost"


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({}, "Flower must be installed and is not"),
        ({"flwr": "1.4.2", "ray": "2"}, "Flower must be 1.42, got 1.4.2"),
        ({"flwr": "1.43.0", "ray": "2"}, "Flower must be 1.42, got 1.43.0"),
        ({"flwr": "1.42.0"}, "Flower's simulation needs Ray, which is missing"),
    ],
)
def test_a_missing_flower_is_one_sentence_with_the_remedy(
    versions: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, **versions)
    with pytest.raises(UserError) as refusal:
        check_installed(needs_ray=True)
    assert str(refusal.value) == f"{said}; type:\n  pip install -c constraints.txt -e '.[flower]'"


def test_real_nodes_need_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, flwr="1.42.0")
    assert check_installed() is None
