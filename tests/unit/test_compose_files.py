"""The Compose files open nothing to the network, and .env.template explains what they ask for."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_only_the_loopback_is_published_and_the_dashboard_gets_the_database() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    for name in ("mongo", "omniboard"):
        assert services[name]["profiles"] == ["tracking"]
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
    assert services["omniboard"]["depends_on"] == {"mongo": {"condition": "service_healthy"}}


def test_every_variable_of_the_compose_files_is_explained() -> None:
    lines = (ROOT / ".env.template").read_text().splitlines()
    explained = {line.lstrip("#").partition("=")[0] for line in lines if "=" in line}
    set_by_run_local = {"CALLER", "RUNS_DIR", "CHECKPOINTS_DIR", "SCALING_FL_VERSION"}
    set_by_run_local |= {"SCALING_FL_COMMIT", "SCALING_FL_DIRTY"}
    for name in ("docker-compose.yaml", "docker-compose.debug.yaml"):
        used = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / name).read_text()))
        assert used - set_by_run_local <= explained, name
