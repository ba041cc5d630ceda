"""The submit script: manifests on standard output, the platforms' clients, errors in sentences."""

import json
import os
import re
import runpy
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.submission.platforms import ROOT, containers

SCRIPT = ROOT / "scripts" / "submit.py"
main = runpy.run_path(str(SCRIPT))["main"]
TRAIN = [
    "--",
    "scripts/train_federated.py",
    "with",
    "demo",
    "site_ids=[0,0,1]",
    "job_name=my_job",
    "checkpoints_dir=gs://bucket/my_job",
]
COMMON = ["--nodes", "2", "--gpus", "4", "--image", "images/fl:1"]
PLATFORMS = {
    "kubeflow-pytorchjob": COMMON,
    "kubeflow-trainjob": COMMON,
    "kubernetes": ["--gpus", "4", "--image", "images/fl:1"],
    "vertex": COMMON,
}
# Writes down how it was called, and fails when it is told to.
CLIENT = """#!{python}
import json, os, sys
from pathlib import Path
config = sys.argv[sys.argv.index("--config") + 1] if "--config" in sys.argv else None
text = Path(config).read_text() if config else sys.stdin.read()
with open({log!r}, "a") as file:
    file.write(json.dumps([sys.argv, text]) + "\\n")
failures = Path({fails!r})
errors = failures.read_text().splitlines() if failures.exists() else []
if errors and "create" in sys.argv:
    failures.write_text("\\n".join(errors[1:]))
    sys.exit(errors[0])
print("created")
"""


class Clients:
    """A folder of stand-ins for kubectl and gcloud, and what they were called with."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._log, self._fails = folder, folder / "log", folder / "fails"
        for name in ("kubectl", "gcloud"):
            text = CLIENT.format(python=sys.executable, log=str(self._log), fails=str(self._fails))
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def fail(self, *errors: str) -> None:
        """Have creating a job fail, with one error after the other."""
        self._fails.write_text("\n".join(errors))

    @property
    def calls(self) -> list[tuple[list[str], list[Any]]]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        calls = [json.loads(line) for line in lines]
        return [([Path(a[0]).name, *a[1:]], list(yaml.safe_load_all(t))) for a, t in calls]


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return Clients(tmp_path)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_dry_run_writes_the_manifest_and_calls_nobody(
    platform: str, clients: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([platform, *PLATFORMS[platform], "--dry-run", *TRAIN]) == 0
    output = capsys.readouterr()
    documents = list(yaml.safe_load_all(output.out))
    assert all(arguments == TRAIN[1:] for arguments, _ in containers(documents, {}))
    assert output.err == ""
    assert clients.calls == []


@pytest.mark.parametrize(
    ("platform", "verbs", "kinds"),
    [
        ("kubeflow-pytorchjob", ["create"], ["PyTorchJob"]),
        ("kubeflow-trainjob", ["apply", "create"], ["TrainingRuntime", "TrainJob"]),
        ("kubernetes", ["create"], ["Job"]),
    ],
)
def test_kubectl_creates_the_job(
    platform: str, verbs: list[str], kinds: list[str], clients: Clients
) -> None:
    assert main([platform, *PLATFORMS[platform], *TRAIN]) == 0
    assert [argv for argv, _ in clients.calls] == [
        ["kubectl", verb, "--filename", "-"] for verb in verbs
    ]
    documents = [document for _, [document] in clients.calls]
    assert [document["kind"] for document in documents] == kinds
    assert {document["metadata"]["name"] for document in documents} == {"my-job"}


def test_gcloud_creates_the_custom_job(clients: Clients) -> None:
    places = ["--project", "mine", "--region", "europe-west4"]
    assert main(["vertex", *COMMON, *places, *TRAIN]) == 0
    [(argv, _)] = clients.calls
    assert argv[:6] == ["gcloud", "ai", "custom-jobs", "create", "--display-name", "my-job"]
    assert argv[6:10] == places
    assert argv[10] == "--config"
    assert not Path(argv[11]).exists()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_client_that_fails_is_heard_and_its_exit_code_kept(
    platform: str, clients: Clients, capfd: pytest.CaptureFixture[str]
) -> None:
    clients.fail("error: the server is away")
    assert main([platform, *PLATFORMS[platform], *TRAIN]) == 1
    err = capfd.readouterr().err
    assert "error: the server is away" in err
    assert re.search(r"^Error: (kubectl|gcloud ai) .* ended with exit code 1\.$", err, re.M)
    assert [argv[:3] for argv, _ in clients.calls if "create" in argv] == [
        ["gcloud", "ai", "custom-jobs"]
        if platform == "vertex"
        else ["kubectl", "create", "--filename"]
    ]


NOT_SEEN = "denied: specified trainingRuntime must be created before the TrainJob is created"


def test_a_job_is_created_again_until_its_new_runtime_is_seen(
    clients: Clients, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scaling_fl.submission.clients.PAUSE_SECONDS", 0.0)
    clients.fail(NOT_SEEN, NOT_SEEN)
    assert main(["kubeflow-trainjob", *COMMON, *TRAIN]) == 0
    assert [argv[1] for argv, _ in clients.calls] == ["apply", "create", "create", "create"]
    assert capfd.readouterr().err == ""


def test_a_runtime_that_is_never_seen_is_given_up(
    clients: Clients, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scaling_fl.submission.clients.PAUSE_SECONDS", 0.0)
    clients.fail(*[NOT_SEEN] * 20)
    assert main(["kubeflow-trainjob", *COMMON, *TRAIN]) == 1
    assert len(clients.calls) == 1 + 10
    assert capfd.readouterr().err.count(NOT_SEEN) == 1


def test_a_client_that_is_missing_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["kubernetes", *PLATFORMS["kubernetes"], *TRAIN]) == 127
    err = capsys.readouterr().err
    assert "kubectl must be installed to submit, but it was not found on PATH" in err
    assert err.count("\n") == 1


def test_what_is_added_to_the_command_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--", "scripts/train_federated.py", "with", "checkpoints_dir=gs://b/my-job"]
    data = ["task_name=20newsgroups_topics", "train_path=sklearn", "test_path=sklearn"]
    options = ["--name", "my-job", "--gpus", "2", "--image", "i", "--dry-run"]
    assert main(["kubernetes", *options, *command, *data]) == 0
    output = capsys.readouterr()
    assert output.err == "added to the command: job_name=my-job site_ids=[0,1]\n"
    [(arguments, _)] = containers(list(yaml.safe_load_all(output.out)), {})
    assert arguments == [*command[1:], *data, "job_name=my-job", "site_ids=[0,1]"]


def test_another_script_is_passed_on_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--name", "sync", "--gpus", "0", "--image", "i", "--dry-run"]
    command = ["--", "scripts/sync_runs.py", "--all", "--", "-h"]
    assert main(["kubernetes", *options, *command]) == 0
    [(arguments, _)] = containers(list(yaml.safe_load_all(capsys.readouterr().out)), {})
    assert arguments == command[1:]


def test_all_problems_are_told_at_once_and_nothing_is_submitted(
    clients: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--nodes", "2", "--gpus", "1", "--image", "", "--env", "A_TOKEN=hunter2"]
    command = ["scripts/train_federated.py", "with", "demo", "site_ids=[0,7]", "learning_rate=-1"]
    assert main(["kubernetes", *options, "--", *command]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    first, *sentences = output.err.splitlines()
    assert first == "Error: 7 problems:"
    starts = ["--nodes", "--name", "--image", "--env", "site_ids", "checkpoints_dir", "learning"]
    assert [s.startswith(start) for s, start in zip(sentences, starts, strict=True)] == [True] * 7
    assert "hunter2" not in output.err
    assert clients.calls == []


@pytest.mark.parametrize("command", [[], ["--"]])
def test_a_command_must_be_given(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kubernetes", "--name", "a", "--gpus", "0", "--image", "i", *command]) == 2
    assert "the command must follow --, got none; add -- scripts/" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["slurm"],
        ["kubernetes", "--image", "i"],
        ["kubernetes", "--gpus", "four", "--image", "i"],
        ["kubernetes", "--gpus", "1", "--image", "i", "--region", "r"],
        ["vertex", "--gpus", "1", "--image", "i", "--namespace", "n"],
    ],
)
def test_options_of_no_or_another_platform_are_misuse(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, *TRAIN])
    assert caught.value.code == 2


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_example_in_the_help_is_accepted(
    platform: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([platform, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    example = text.partition("scripts/submit.py " + platform)[2].partition("example:\n")[2]
    words = example.replace("\\\n", " ").split()
    assert words[:2] == ["scripts/submit.py", platform]
    paths = ["train_path=gs://b/train.csv", "test_path=gs://b/test.csv"]
    end = words.index("--")
    extra = [] if "--dry-run" in words else ["--dry-run"]
    assert main([*words[1:end], *extra, *words[end:], *paths]) == 0


def test_the_commands_of_the_page_on_clusters_are_accepted() -> None:
    text = (ROOT / "docs/clusters.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^\$ \./run-local\.sh scripts/submit\.py (.+)$", text, re.M)
    assert {shlex.split(command)[0] for command in commands} >= {"kubeflow-trainjob", "vertex"}
    for command in commands:
        words = shlex.split(command)
        end = words.index("--")
        assert main([*words[:end], "--dry-run", *words[end:]]) == 0


def test_the_script_runs_from_anywhere_and_imports_nothing_heavy(tmp_path: Path) -> None:
    assert SCRIPT.stat().st_mode & stat.S_IXUSR
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'torch', 'transformers', 'sacred', 'numpy', 'google'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    arguments = ["kubernetes", *PLATFORMS["kubernetes"], "--dry-run", *TRAIN]
    done = subprocess.run(
        [sys.executable, "-c", code, str(SCRIPT), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(yaml.safe_load_all(done.stdout))
