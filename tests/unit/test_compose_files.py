"""The Compose files open nothing to the network, and no database that lets nobody in."""

import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def test_only_the_loopback_is_published_and_the_dashboard_gets_the_database() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    for name in ("mongo", "omniboard"):
        assert services[name]["profiles"] == ["tracking"]
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
    assert services["omniboard"]["depends_on"] == {"mongo": {"condition": "service_healthy"}}
    check = "tracking-needs-SACRED_USER-and-SACRED_PASSWORD"
    assert services["mongo"]["depends_on"] == {
        check: {"condition": "service_completed_successfully"}
    }
    assert services[check]["profiles"] == ["tracking"]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, 1),
        ({"MONGO_INITDB_ROOT_USERNAME": "ann"}, 1),
        ({"MONGO_INITDB_ROOT_PASSWORD": "secret"}, 1),
        ({"MONGO_INITDB_ROOT_USERNAME": "ann", "MONGO_INITDB_ROOT_PASSWORD": "secret"}, 0),
    ],
)
def test_a_database_that_would_let_nobody_in_is_refused(given: dict[str, str], code: int) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    shell, option, text = services["tracking-needs-SACRED_USER-and-SACRED_PASSWORD"]["entrypoint"]
    command = [shell, option, text.replace("$$", "$")]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert ("SACRED_USER and SACRED_PASSWORD must be set" in done.stderr) == (code == 1)
