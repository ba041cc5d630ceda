"""RUNTIME=docker: the same arguments, results, exit codes and files as without a container."""

import contextlib
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from tests.docker.engine import (
    DEBUG_IMAGE,
    TRAIN_IMAGE,
    Project,
    as_somebody_else,
    docker,
    image_files,
)
from tests.e2e.commands import ROOT, Job, Shell, arguments, federation, resume_command, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]


def settings(corpus: Path, **changes: object) -> list[str]:
    base = {"job_name": "job", "checkpoints_dir": "checkpoints/job"}
    return arguments(federation(corpus, **(base | changes)))


def job_in(folder: Path) -> Job:
    return Job(folder / "checkpoints" / "job", folder / "runs" / "1")


def test_a_run_is_bitwise_the_one_outside_and_says_where_it_came_from(
    project: Project, shell: Shell, corpus: Path, whole: Job
) -> None:
    command = project.train(shell, *settings(corpus)).end(expect=0)
    job = job_in(shell.folder)
    assert job.digest == whole.digest
    assert job.curves == whole.curves
    assert job.status == "COMPLETED"
    repositories = job.read("run.json")["experiment"]["repositories"]
    assert repositories == [{"url": None, "commit": project.commit, "dirty": False}]
    assert "checkpoints          checkpoints/job" in command.out
    again = shlex.split(resume_command(command.out))
    assert again[:2] == ["RUNTIME=docker", str(project.folder / "run-local.sh")]
    project.type(shell, *again[2:], "num_rounds=7").end(expect=0)
    assert job.last_round == 7


def test_saved_states_are_evaluated_and_gone_on_from_wherever_they_and_their_data_are(
    project: Project, shell: Shell, corpus: Path, whole: Job
) -> None:
    start = settings(corpus, num_rounds=1, init_from=whole.checkpoints)
    project.train(shell, *start).end(expect=0)
    evaluate = "scripts/evaluate.py"
    for words in (
        ["runs/1"],  # of a container, evaluated in one and outside
        [str(whole.run)],
        [str(whole.checkpoints), f"--test-path={corpus / 'train.csv'}"],
        ["checkpoints/job/round-000001", "--test-path", str(corpus / "train.csv")],
    ):
        inside = project.type(shell, evaluate, *words, "--json").end(expect=0)
        outside = shell.type(sys.executable, str(ROOT / evaluate), *words, "--json").end(expect=0)
        assert json.loads(inside.out) == json.loads(outside.out)
    project.type(shell, "scripts/merge_adapter.py", "runs/1", "--out", "mine/model").end(expect=0)
    assert (shell.folder / "mine" / "model" / "config.json").is_file()


@pytest.mark.nightly
def test_the_demo_is_bitwise_the_same_inside_and_outside(project: Project, shell: Shell) -> None:
    short = ["with", "demo", "num_rounds=1", "num_threads=1", "num_local_steps=2"]
    short.append("data.max_test_examples=80")
    project.train(shell, *short, "job_name=inside").end(expect=0, patience_seconds=600)
    shell.train(*short, "job_name=outside").end(expect=0, patience_seconds=600)
    inside, outside = (Job(shell.folder, shell.folder / "runs" / number) for number in "12")
    assert inside.digest == outside.digest
    assert inside.curves == outside.curves


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act for another user")
def test_files_belong_to_the_caller(
    project: Project, shell: Shell, corpus: Path, tmp_path: Path
) -> None:
    uid, home = 54321, tmp_path / "home"
    home.mkdir()
    for folder in (home, tmp_path):
        os.chown(folder, uid, uid)
    for path in (project.folder, corpus, *corpus.iterdir(), *tmp_path.parents):
        if path != Path("/") and path.is_dir():
            path.chmod(path.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    cache = home / "texts"
    command = [str(project.folder / "run-local.sh"), "scripts/train_federated.py"]
    images = {"RUNTIME": "docker", "TRAIN_IMAGE": TRAIN_IMAGE, "DATA_MOUNT_DIR": str(home)}
    as_somebody_else(
        shell,
        *command,
        *settings(corpus, num_rounds=1, **{"data.cache_dir": cache}),
        uid=uid,
        HOME=str(home),
        **images,
    ).end(expect=0)
    left = [path for name in ("runs", "checkpoints") for path in (tmp_path / name).rglob("*")]
    assert len(left) > 10
    assert {path.stat().st_uid for path in [*left, *home.rglob("*")]} == {uid}


def test_arguments_arrive_as_they_were_typed(project: Project, shell: Shell, corpus: Path) -> None:
    author = """Jo "X" O'Hara; $(echo no) $HOME *"""
    project.train(shell, *settings(corpus, num_rounds=1), f"author={author!r}").end(expect=0)
    assert job_in(shell.folder).read("config.json")["author"] == author


def test_a_configuration_error_keeps_its_exit_code_and_sentence(
    project: Project, shell: Shell
) -> None:
    command = project.train(shell, "with", "num_rounds=0", "learning_rate=-1").end(expect=2)
    assert "num_rounds" in command.err
    assert "learning_rate" in command.err


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.nightly), (signal.SIGTERM, 143)],
)
def test_a_signal_ends_the_run_as_interrupted_and_it_resumes(
    project: Project, shell: Shell, corpus: Path, number: int, code: int
) -> None:
    command = project.train(shell, *settings(corpus, num_rounds=5000, save_every=5000))
    job = job_in(shell.folder)
    command.wait_until(lambda: job.last_round >= 2, "round 2")
    os.killpg(command.pid, number)
    command.end(expect=code, patience_seconds=40)
    assert job.status == "INTERRUPTED"
    job.assert_whole()
    last = job.last_round
    project.train(shell, *settings(corpus, num_rounds=last + 1, save_every=5000)).end(expect=0)
    assert (job.status, job.last_round) == ("COMPLETED", last + 1)


def test_ctrl_c_in_a_terminal_ends_the_run_as_interrupted(
    project: Project, shell: Shell, corpus: Path
) -> None:
    near, far = os.openpty()
    command = [str(project.folder / "run-local.sh"), "scripts/train_federated.py"]
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command, *settings(corpus, num_rounds=5000)],
        cwd=shell.folder,
        env=os.environ | {"RUNTIME": "docker", "TRAIN_IMAGE": TRAIN_IMAGE, "TERM": "xterm"},
        stdin=far,
        stdout=far,
        stderr=far,
    )
    os.close(far)
    shown = threading.Thread(target=_drain, args=(near,))
    shown.start()
    job = job_in(shell.folder)
    try:
        wait_for(lambda: job.last_round >= 2 or process.poll() is not None, "round 2", 200)
        os.write(near, b"\x03")
        assert process.wait(40) == 130
    finally:
        process.kill()
        process.wait()
        shown.join()
        os.close(near)
    assert job.status == "INTERRUPTED"


def _drain(terminal: int) -> None:
    """Read what a terminal shows until nobody writes to it any more."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass


def test_two_calls_at_once(project: Project, shell: Shell, corpus: Path, whole: Job) -> None:
    calls = [
        project.train(
            shell, *settings(corpus, job_name=name, checkpoints_dir=f"checkpoints/{name}")
        )
        for name in ("one", "two")
    ]
    for call in calls:
        call.end(expect=0)
    digests = {Job(shell.folder, shell.folder / "runs" / number).digest for number in "12"}
    assert digests == {whole.digest}


def test_env_is_read_at_run_time_and_is_not_in_the_image(project: Project, shell: Shell) -> None:
    secret = f"never-in-an-image-{uuid.uuid4()}"
    (project.folder / ".env").write_text(
        f"SACRED_MONGO_URI=nonsense\nAWS_SECRET_ACCESS_KEY={secret}\n"
    )
    try:
        command = project.train(shell, "with", "demo").end(expect=1)
        assert "SACRED_MONGO_URI must start with mongodb://" in command.err
        assert secret not in command.out + command.err
        project.type(shell, "pytest", "--version").end(expect=0)
        for image in (TRAIN_IMAGE, DEBUG_IMAGE):
            assert secret not in docker("history", "--no-trunc", image).stdout
            assert not [name for name in image_files(image) if name.endswith("/.env")]
            search = ["-c", f"grep -rlF {secret} /workspace /etc /tmp || true"]
            assert docker("run", "--rm", "--entrypoint", "sh", image, *search).stdout == ""
    finally:
        (project.folder / ".env").unlink()


def test_a_password_in_the_index_address_is_refused(project: Project, shell: Shell) -> None:
    address = "https://me:hidden-password@index.example.org/simple"
    command = project.train(shell, "print_config", TORCH_INDEX_URL=address).end(expect=1)
    assert "TORCH_INDEX_URL holds a user or a password" in command.err
    assert "hidden-password" not in command.err


def test_gpus_are_asked_for_where_the_machine_has_them(
    project: Project, shell: Shell, tmp_path: Path
) -> None:
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-0)'\n")
    fake.chmod(0o755)
    path = f"{fake.parent}{os.pathsep}{os.environ['PATH']}"
    command = project.train(shell, "print_config", PATH=path)
    assert command.process.wait(300) != 0
    assert 'could not select device driver "nvidia"' in command.err.replace("\\", "")


def test_pytest_runs_inside_the_image(project: Project, shell: Shell) -> None:
    command = project.type(shell, "pytest", "-q", "tests/unit/core").end(expect=0)
    assert " passed" in command.out


def test_a_script_that_is_not_the_projects_is_refused(project: Project, shell: Shell) -> None:
    (shell.folder / "mine.py").write_text("print(1)\n")
    command = project.type(shell, "mine.py").end(expect=1)
    assert "a container runs scripts of this project, got mine.py" in command.err


def test_a_change_of_the_code_is_in_the_next_run(project: Project, shell: Shell) -> None:
    script = project.folder / "scripts" / "hello.py"
    script.write_text("print('hello from the image')\n")
    try:
        command = project.type(shell, "scripts/hello.py").end(expect=0)
        assert "hello from the image" in command.out
        assert "Installing" not in command.err
    finally:
        script.unlink()


def test_print_config_of_a_yaml_file_of_the_caller(project: Project, shell: Shell) -> None:
    (shell.folder / "mine.yaml").write_text(json.dumps({"num_rounds": 17}))
    command = project.train(shell, "print_config", "with", "mine.yaml").end(expect=0)
    assert re.search(r"^\* num_rounds += 17\b", command.out, re.MULTILINE)
