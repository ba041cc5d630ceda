"""RUNTIME=docker: what an argument names is in the container where it is outside."""

import json
import os
import subprocess
from pathlib import Path

import pytest

RUNNER = Path(__file__).parents[3] / "run-local.sh"
DOCKER = """#!/bin/sh
# Answers as an engine that has the image does, and writes down what is to be run.
case "$*" in "compose "*" run "*) printf '%s\\n' "$@" > "$SAID" ;; esac
exit 0
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a docker in the PATH; returns the folder in which the caller stands."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(DOCKER)
    program.chmod(0o755)
    home = tmp_path / "home"
    environ = {"HOME": home, "RUNTIME": "docker", "SAID": tmp_path / "said"}
    environ["PATH"] = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    for name, value in environ.items():
        monkeypatch.setenv(name, str(value))
    here = tmp_path / "here"
    here.mkdir()
    return here


def run(here: Path, *arguments: str, **environ: str) -> tuple[set[str], list[str]]:
    """Type a command; returns what is mounted where it is outside, and the program's words."""
    command = [str(RUNNER), *arguments]
    done = subprocess.run(
        command, cwd=here, env=os.environ | environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    words = (here.parent / "said").read_text().splitlines()
    pairs = [words[i + 1].split(":") for i, word in enumerate(words) if word == "-v"]
    assert len({target for _, target, *_ in pairs}) == len(pairs), "Docker refuses that"
    assert ["-w", str(here)] == words[(at := words.index("-w")) : at + 2]
    mounted = {source for source, target, *_ in pairs if source == target} - {str(here)}
    return mounted, words[words.index("main") + 1 :]


def write(path: Path, content: str = "x") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return str(path)


def test_the_callers_folder_is_the_containers_and_the_script_that_of_the_image(
    engine: Path,
) -> None:
    write(engine / "mine" / "train.csv")
    mounted, words = run(
        engine, "scripts/train_federated.py", "with", "demo", "train_path=mine/train.csv"
    )
    assert mounted == set()
    expected = ["/workspace/scripts/train_federated.py", "with", "demo"]
    assert words == [*expected, "train_path=mine/train.csv"]


def test_whatever_exists_elsewhere_is_mounted_however_it_is_named(engine: Path) -> None:
    away = engine.parent / "away"
    names = ("train.csv", "test.csv", "quoted.csv", "job", "beside.csv", "linked.csv", "model")
    there = {name: write(away / name) for name in names}
    (engine / "link.csv").symlink_to(there["linked.csv"])
    mounted, _ = run(
        engine,
        "scripts/evaluate.py",
        there["job"],
        "--test-path",
        there["test.csv"],
        f"--model={there['model']}",
        f"train_path={there['train.csv']}",
        f"test_path={there['train.csv']}",
        f"init_from='{there['quoted.csv']}'",
        "other=../away/beside.csv",
        "test_path=link.csv",
        "gs://bucket/job",
        "/workspace/data",
        "/",
        str(away / "absent"),
    )
    assert mounted == set(there.values())


def test_the_data_and_the_model_that_a_run_names_are_mounted(engine: Path) -> None:
    away = engine.parent / "away"
    kinds = ("of_run", "of_job", "of_round", "of_yaml")
    there = {kind: write(away / kind / "test.csv") for kind in kinds}
    model = write(away / "model" / "config.json", "{}").removesuffix("/config.json")

    def config(kind: str) -> str:
        named = {"test_path": there[kind], "model": model, "train_path": "gone.csv"}
        return json.dumps(named, indent=2)

    write(engine / "runs" / "1" / "config.json", config("of_run"))
    write(engine / "checkpoints" / "j" / "round-000002" / "config.json", config("of_job"))
    write(away / "round-000001" / "config.json", config("of_round"))
    write(engine / "mine.yaml", f"num_rounds: 3\ntest_path: {there['of_yaml']}  # mine\n")
    for word, kind, more in (
        ("runs/1", "of_run", set()),
        ("checkpoints/j", "of_job", set()),
        (str(away / "round-000001"), "of_round", {str(away / "round-000001")}),
    ):
        mounted, _ = run(engine, "scripts/evaluate.py", word)
        assert mounted == {there[kind], model} | more
    mounted, _ = run(engine, "scripts/train_federated.py", "with", "mine.yaml")
    assert mounted == {there["of_yaml"]}


def test_what_is_written_elsewhere_is_written_outside(engine: Path) -> None:
    away = engine.parent / "away"
    away.mkdir()
    mounted, _ = run(
        engine,
        "scripts/train_federated.py",
        "with",
        f"checkpoints_dir={away}/a/b",
        "data.cache_dir=c",
    )
    assert mounted == {f"{away}/a/b"}
    assert (engine / "c").is_dir()
    mounted, _ = run(engine, "scripts/merge_adapter.py", "runs/1", "--out", f"{away}/new/merged")
    assert mounted == {str(away)}


def test_data_are_those_of_the_callers_folder_or_else_of_the_folder_for_data(
    engine: Path,
) -> None:
    elsewhere = engine.parent / "sets"
    write(elsewhere / "train.csv")
    write(engine / "data" / "mine.csv")
    run(engine, "scripts/look.py", "train_path=data/mine.csv", DATA_MOUNT_DIR=str(elsewhere))
    said = (engine.parent / "said").read_text().splitlines()
    assert f"{elsewhere}:{engine}/data" not in said
    run(engine, "scripts/look.py", "train_path=data/train.csv", DATA_MOUNT_DIR=str(elsewhere))
    said = (engine.parent / "said").read_text().splitlines()
    assert f"{elsewhere}:{engine}/data" in said


def test_the_folder_may_be_reached_through_a_link(engine: Path) -> None:
    link = engine.parent / "link"
    link.symlink_to(engine)
    command = [str(RUNNER), "scripts/look.py", "train_path=../away.csv"]
    away = write(engine.parent / "away.csv")
    environ = os.environ | {"PWD": str(link)}
    subprocess.run(command, cwd=link, env=environ, capture_output=True, check=True)
    said = (engine.parent / "said").read_text().splitlines()
    assert f"{engine}:{engine}" in said
    assert f"{away}:{away}" in said
