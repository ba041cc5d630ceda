"""Options are checked together, and a secret never gets into a manifest or a message."""

from typing import Any

import pytest

from scaling_fl.submission.request import LONGEST_NAME, Request, name_of_job, problems


def found(platform: str = "kubeflow-pytorchjob", **changes: Any) -> list[str]:
    given = {"nodes": 1, "gpus": 1, "image": "i", "name": "job", "arguments": ["a.py"]} | changes
    return [str(problem) for problem in problems(Request(platform=platform, **given))]


def test_sound_options_have_no_problem() -> None:
    assert found(environ=["A=1", "B="], secrets=["C=s", "D=s/k", "E_TOKEN=a.b-c/k.e_y"]) == []
    secrets = ["A=projects/p/secrets/s", "B=projects/7/secrets/s_S-1/versions/2", "C=s"]
    assert found("vertex", secrets=secrets, project="p") == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"nodes": 0}, "--nodes must be at least 1, got 0; count the machines."),
        ({"gpus": -1}, "--gpus must be at least 0, got -1; count the GPUs of one machine."),
        ({"image": ""}, "--image must name a container image, got '';"),
        ({"image": "a b"}, "--image must name a container image, got 'a b';"),
        ({"name": ""}, "--name must be given when the command has no job_name, got none;"),
        ({"name": "My_job"}, "--name must have lower-case letters, digits and hyphens"),
        ({"name": "1job"}, "begin with a letter"),
        ({"name": "job-"}, "got 'job-'"),
        ({"name": "j" * (LONGEST_NAME + 1)}, f"at most {LONGEST_NAME} characters"),
        ({"environ": ["A"]}, "--env must be a variable and its value, got 'A'; write it as NAME="),
        ({"environ": ["1A=2"]}, "--env must be a variable"),
        ({"environ": ["WORLD_SIZE=2"]}, "must not set a variable of the platform, got WORLD_SIZE"),
        ({"environ": ["PET_NNODES=2"]}, "must not set a variable of the platform"),
        ({"environ": ["CLUSTER_SPEC={}"]}, "must not set a variable of the platform"),
        ({"secrets": ["RANK=a"]}, "must not set a variable of the platform, got RANK"),
        ({"secrets": ["A=under_score"]}, "--secret must name a Kubernetes Secret, got A=***;"),
        ({"secrets": ["A="]}, "--secret must name a Kubernetes Secret"),
        ({"secrets": ["A=s/"]}, "--secret must name a Kubernetes Secret"),
        ({"secrets": ["A=a..b"]}, "--secret must name a Kubernetes Secret"),
        ({"secrets": ["A=s/.."]}, "--secret must name a Kubernetes Secret"),
        ({"image": "Images/FL:1"}, "--image must name a container image, got 'Images/FL:1'; give"),
        ({"image": "host/fl:"}, "--image must name a container image, got 'host/fl:';"),
        ({"image": "fl@sha256:12"}, "--image must name a container image"),
        ({"image": "https://host/fl"}, "--image must name a container image"),
        ({"namespace": "My_space"}, "--namespace must have lower-case letters, digits and hyphens"),
        ({"namespace": "n" * 64}, "at most 63 of them, got"),
        ({"namespace": ""}, "--namespace must have"),
        ({"kueue": "Team_A"}, "--kueue must have lower-case letters, digits and hyphens inside"),
        ({"time_limit": "8h"}, "--time must be a time of Slurm, got '8h'; write HOURS:MINUTES:"),
        ({"service_account": "robot_1"}, "--service-account must have lower-case letters and dig"),
        ({"service_account": "-robot"}, "hyphens and dots inside, got '-robot'; correct it."),
        ({"environ": ["A=1", "A=2"]}, "--env and --secret must set a variable once, got A;"),
        ({"environ": ["A=1"], "secrets": ["A=s"]}, "must set a variable once, got A; keep one"),
    ],
)
def test_each_problem_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    [text] = found(**changes)
    assert sentence in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "text",
    [
        "SACRED_PASSWORD=hunter2",
        "MY_API_KEY=hunter2",
        "HF_TOKEN=hunter2",
        "AWS_SECRET_ACCESS_KEY=hunter2",
        "SACRED_MONGO_URI=mongodb://me:hunter2@host/db",
        "PROXY=http://me:hunter2@proxy:3128",
        "URL=https://host/path?X-Signature=hunter2",
    ],
)
def test_a_secret_is_refused_and_not_repeated(text: str) -> None:
    [sentence] = found(environ=[text])
    name = text.partition("=")[0]
    assert sentence.endswith(f"got {name}; use --secret {name}=SECRET.")
    assert "hunter2" not in sentence


@pytest.mark.parametrize(
    "text", ["hunter2", "a-b=hunter2", "A=Hunter2!", "A=mongodb://u:hunter2@h"]
)
@pytest.mark.parametrize("platform", ["kubernetes", "vertex"])
def test_a_secret_in_the_place_of_its_name_is_not_repeated(platform: str, text: str) -> None:
    sentences = found(platform, secrets=[text], project="p")
    assert sentences
    assert "unter2" not in "".join(sentences)


@pytest.mark.parametrize(
    "image",
    [
        "fl",
        "fl:1.0_a-B",
        "localhost:5000/a/b__c:latest",
        "us-docker.pkg.dev/my-project/images/scaling-fl:1",
        "[::1]:5000/fl",
        f"registry.example.com/fl:1@sha256:{'0a' * 32}",
    ],
)
def test_every_form_of_an_image_is_accepted(image: str) -> None:
    assert found(image=image) == []


@pytest.mark.parametrize(
    ("account", "is_sound"),
    [
        ("trainer@my-project.iam.gserviceaccount.com", True),
        ("12345-compute@developer.gserviceaccount.com", True),
        ("trainer@project.example.com.iam.gserviceaccount.com", True),
        ("trainer", False),
        ("me@example.com", False),
    ],
)
def test_a_google_account_is_an_address(account: str, is_sound: bool) -> None:
    sentences = found("vertex", service_account=account)
    assert (sentences == []) == is_sound
    assert all("must be the address of a Google service account" in text for text in sentences)


def test_a_plain_kubernetes_job_is_one_machine() -> None:
    [sentence] = found("kubernetes", nodes=2)
    assert "must be 1 for a plain Kubernetes Job, got 2; use kubeflow-trainjob or" in sentence


def test_a_secret_of_vertex_needs_a_project() -> None:
    [sentence] = found("vertex", secrets=["A=name"])
    assert sentence == (
        "--secret must name the project of the secret, got A=name; add --project PROJECT."
    )


def test_all_problems_are_found_at_once() -> None:
    assert len(found(nodes=0, gpus=-1, image="", name="_", environ=["A"], secrets=["B"])) == 6


@pytest.mark.parametrize(
    ("job_name", "name"),
    [
        ("my_job", "my-job"),
        ("AGNews.v2", "agnews-v2"),
        ("20261121_101010", "job-20261121-101010"),
        ("__a__", "a"),
        ("___", "job"),
    ],
)
def test_a_job_name_becomes_a_name(job_name: str, name: str) -> None:
    assert name_of_job(job_name) == name
    assert found(name=name) == []
