"""What a training command lacks is added or asked for before anything is submitted."""

from pathlib import Path

import pytest

from scaling_fl.submission.command import TRAINING, TrainingCommand, script_problems
from tests.unit.submission.platforms import ROOT

DEMO = ("with", "demo", "checkpoints_dir=gs://bucket/job")


def command(*arguments: str, root: Path = ROOT) -> TrainingCommand:
    return TrainingCommand([TRAINING, *arguments], root=root)


def found(
    given: TrainingCommand, *, nodes: int = 1, gpus: int = 4, mounts: tuple[str, ...] = ()
) -> list[str]:
    return [str(problem) for problem in given.problems(nodes=nodes, gpus=gpus, mounts=mounts)]


def test_a_whole_command_is_left_as_it_is() -> None:
    given = command(*DEMO, "job_name=my_job")
    given.complete(name="other", gpus=4)
    assert given.arguments == [TRAINING, *DEMO, "job_name=my_job"]
    assert given.added == []
    assert found(given) == []


def test_the_name_and_a_site_for_every_gpu_are_added() -> None:
    given = command("with", "task_name=20newsgroups", "checkpoints_dir=s3://b/c")
    given.complete(name="my-job", gpus=3)
    assert given.arguments[-2:] == ["job_name=my-job", "site_ids=[0,1,2]"]
    assert given.added == given.arguments[-2:]


def test_without_gpus_there_is_one_site() -> None:
    given = command("with", "checkpoints_dir=s3://b/c")
    given.complete(name="my-job", gpus=0)
    assert "site_ids=[0]" in given.arguments


def test_with_is_added_when_something_is() -> None:
    given = command()
    given.complete(name="my-job", gpus=1)
    assert given.arguments == [TRAINING, "with", "job_name=my-job", "site_ids=[0]"]


def test_settings_are_read_as_the_script_reads_them(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("site_ids: [0, 1]\nserver: {learning_rate: 0.5}\n")
    given = command(
        "with",
        "job_name=20261121_101010",
        "server.optimiser=sgd",
        "own.yaml",
        "model='tiny'",
        "demo",
        root=tmp_path,
    )
    assert given.job_name == "20261121_101010"
    assert given.settings["server"] == {"learning_rate": 0.5, "optimiser": "sgd"}
    assert given.settings["model"] == "tiny"  # what is typed wins over what is named
    assert given.settings["data"]["max_train_examples"] == 2400
    assert command("with", "job_name='a'").job_name == "a"
    assert command("with", "job_name=None").job_name == ""


def test_sites_of_a_file_are_not_overruled(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("site_ids: [0, 9]\njob_name: mine\n")
    given = command("with", "own.yaml", "checkpoints_dir=s3://b/c", root=tmp_path)
    given.complete(name="other", gpus=4)
    assert given.added == []
    assert "site_ids must be below --gpus 4, got [0, 9]; use ids from 0 to 3 " in found(given)[0]


@pytest.mark.parametrize("gpus", [0, 8])
def test_cpu_slots_have_no_bound(gpus: int) -> None:
    given = command(*DEMO, "site_ids=[0,7]", "job_name=j")
    assert found(given, gpus=gpus) == []


@pytest.mark.parametrize(
    ("location", "is_lasting"),
    [
        ("gs://bucket/job", True),
        ("s3://bucket/job", True),
        ("file:///checkpoints/job", False),
        ("checkpoints/job", False),
        ("/checkpoints/job", True),
        ("/checkpoints", True),
        ("/checkpointsother/job", False),
        ("/checkpoints/../job", False),
        ("/gcs/bucket/job", False),
    ],
)
def test_checkpoints_must_outlive_the_container(location: str, is_lasting: bool) -> None:
    given = command("with", "demo", "job_name=j", f"checkpoints_dir={location}")
    sentences = [text for text in found(given, mounts=("/checkpoints",)) if "outlive" not in text]
    is_refused = any("must be in an object store or below /checkpoints" in t for t in sentences)
    assert is_refused != is_lasting


def test_checkpoints_must_be_given() -> None:
    [sentence] = found(command("with", "demo", "job_name=my_job"))
    assert sentence == (
        "checkpoints_dir must be given, because the disk of a container ends with the container, "
        "got none; use gs://BUCKET/my_job or s3://BUCKET/...."
    )


def test_all_problems_of_the_configuration_are_found_at_once() -> None:
    sentences = "\n".join(
        found(command("with", "demoo", "learning_rate=-1", "num_round=3", "site_ids=[7]"))
    )
    for part in ("'demoo'", "learning_rate must", "num_round must be a known", "below --gpus 4"):
        assert part in sentences
    assert "checkpoints_dir must be given" in sentences


def test_files_that_only_the_container_has_are_its_business() -> None:
    paths = ["task_name=agnews", "train_path=/data/train.csv", "test_path=/data/test.csv"]
    assert found(command("with", *paths, "job_name=j", "checkpoints_dir=gs://b/j")) == []


@pytest.mark.parametrize(
    "script",
    [
        "scripts/sync_runs.py",
        "./scripts/sync_runs.py",
        "/workspace/scripts/sync_runs.py",
        "-m",
        "/opt/own/script.py",  # an own image may hold it
    ],
)
def test_a_script_of_the_image_is_accepted(script: str) -> None:
    assert list(script_problems([script], ROOT)) == []


@pytest.mark.parametrize(
    ("script", "remedy"),
    [
        ("scripts/train_federate.py", "use scripts/train_federated.py."),
        ("/workspace/scripts/evaluat.py", "use scripts/evaluate.py."),
        ("train", "use one of scripts/check_codec.py, "),
        ("tests/conftest.py", "; use "),
        ("run-local.sh", "; use "),
    ],
)
def test_a_script_that_the_image_does_not_hold_is_named(script: str, remedy: str) -> None:
    [problem] = script_problems([script], ROOT)
    assert "must begin with a script that the image holds, which are those of" in str(problem)
    assert f"got '{script}'; use " in str(problem)
    assert remedy in str(problem)
