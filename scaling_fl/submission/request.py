"""A request to a platform, by the options of the command line, and the problems of the request."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scaling_fl.config import Problem, redact
from scaling_fl.runtime.redaction import SECRET_NAME
from scaling_fl.submission.command import QUEUE, script_in_project
from scaling_fl.submission.names import (
    is_google_account,
    is_image,
    is_namespace,
    is_object_name,
    is_secret_key,
)

# The names of services, pods and hosts contain the name of the job and have 63 characters.
LONGEST_NAME = 45
_NAME = re.compile(rf"[a-z]([-a-z0-9]{{0,{LONGEST_NAME - 2}}}[a-z0-9])?")
_TIME = re.compile(r"(\d+-)?\d+(:\d\d){0,2}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MANAGED_SECRET = re.compile(
    r"(?:projects/(?P<project>[^/]+)/secrets/)?(?P<name>[A-Za-z0-9_-]+)"
    r"(?:/versions/(?P<version>[^/]+))?"
)
_SET_BY_PLATFORMS = re.compile(r"PET_.*|MASTER_ADDR|MASTER_PORT|WORLD_SIZE|RANK|CLUSTER_SPEC")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A command to run on a platform, with the options."""

    platform: str
    nodes: int
    gpus: int
    image: str
    name: str
    arguments: Sequence[str]
    """The arguments of python, the entry point of the image: a script and its arguments."""
    environ: Sequence[str] = ()
    """Each is NAME=VALUE."""
    secrets: Sequence[str] = ()
    """Each is VARIABLE=REFERENCE."""
    service_account: str | None = None
    namespace: str | None = None
    project: str | None = None
    region: str | None = None
    machine_type: str | None = None
    accelerator_type: str | None = None
    spot: bool = False
    kueue: str | None = None
    """The queue of Kueue that decides when the job may start; not the queue of runs."""
    partition: str | None = None
    account: str | None = None
    time_limit: str | None = None

    @property
    def serves_queue(self) -> bool:
        """Whether the machines serve a queue of runs, each for itself."""
        return bool(self.arguments) and script_in_project(self.arguments[0]) == QUEUE

    @property
    def variables(self) -> dict[str, str]:
        return dict(_pair(text) for text in self.environ)

    @property
    def kubernetes_secrets(self) -> dict[str, dict[str, str]]:
        """For each variable, the name and the key of a Kubernetes Secret."""
        found = {}
        for variable, reference in map(_pair, self.secrets):
            name, _, key = reference.partition("/")
            found[variable] = {"name": name, "key": key or variable}
        return found

    @property
    def managed_secrets(self) -> dict[str, str]:
        """For each variable, the secret of Secret Manager that the program must read."""
        found = {}
        for variable, reference in map(_pair, self.secrets):
            match = _MANAGED_SECRET.fullmatch(reference)
            assert match
            project, version = match["project"] or self.project, match["version"] or "latest"
            found[variable] = f"sm://projects/{project}/secrets/{match['name']}/versions/{version}"
        return found


def problems(request: Request) -> list[Problem]:
    """Find all problems of the options."""
    found = [*_size_problems(request), *_name_problems(request)]
    for text in request.environ:
        found += _variable_problems(text)
    for text in request.secrets:
        found += _secret_problems(text, request)
    return [*found, *_repeated(request)]


def name_of_job(job_name: str) -> str:
    """Derive a name for the platforms from a job's name: lower case, hyphens, a letter first."""
    name = re.sub(r"[^a-z0-9]+", "-", job_name.lower()).strip("-")
    return name if name[:1].isalpha() else f"job-{name}".rstrip("-")


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _size_problems(request: Request) -> Iterator[Problem]:
    nodes, gpus = request.nodes, request.gpus
    if nodes < 1:
        yield Problem("--nodes", "must be at least 1", str(nodes), "count the machines")
    elif nodes > 1 and request.platform == "kubernetes" and not request.serves_queue:
        remedy = "use kubeflow-trainjob or kubeflow-pytorchjob for several machines"
        yield Problem("--nodes", "must be 1 for a plain Kubernetes Job", str(nodes), remedy)
    if gpus < 0:
        remedy = "count the GPUs of one machine"
        yield Problem("--gpus", "must be at least 0", str(gpus), remedy)


def _name_problems(request: Request) -> Iterator[Problem]:
    if not request.name:
        remedy = "add --name NAME or job_name=NAME"
        yield Problem("--name", "must be given when the command has no job_name", "none", remedy)
    elif not _NAME.fullmatch(request.name):
        yield Problem(
            "--name",
            "must have lower-case letters, digits and hyphens, begin with a letter, and have at "
            f"most {LONGEST_NAME} characters",
            repr(request.name),
            "choose another name",
        )
    if request.platform != "slurm" and not is_image(request.image):
        remedy = "give the image's whole name in small letters: registry.example.com/scaling-fl:1"
        yield Problem("--image", "must name a container image", repr(request.image), remedy)
    if request.namespace is not None and not is_namespace(request.namespace):
        rule = "must have lower-case letters, digits and hyphens inside, and at most 63 of them"
        yield Problem("--namespace", rule, repr(request.namespace), "correct it")
    if request.service_account is not None:
        yield from _account_problems(request.service_account, request.platform)
    if request.kueue is not None and not is_namespace(request.kueue):
        rule = "must have lower-case letters, digits and hyphens inside, and at most 63 of them"
        yield Problem("--kueue", rule, repr(request.kueue), "name a LocalQueue of the namespace")
    if request.time_limit is not None and not _TIME.fullmatch(request.time_limit):
        rule = "must be a time of Slurm"
        yield Problem("--time", rule, repr(request.time_limit), "write HOURS:MINUTES:SECONDS")


def _account_problems(account: str, platform: str) -> Iterator[Problem]:
    if platform == "vertex" and not is_google_account(account):
        rule = "must be the address of a Google service account"
        remedy = "write it as NAME@PROJECT.iam.gserviceaccount.com"
        yield Problem("--service-account", rule, repr(account), remedy)
    elif platform != "vertex" and not is_object_name(account):
        rule = "must have lower-case letters and digits, and hyphens and dots inside"
        yield Problem("--service-account", rule, repr(account), "correct it")


def _variable_problems(text: str) -> Iterator[Problem]:
    name, value = _pair(text)
    if "=" not in text or not _VARIABLE.fullmatch(name):
        remedy = "write it as NAME=VALUE"
        yield Problem("--env", "must be a variable and its value", repr(redact(text)), remedy)
    elif _SET_BY_PLATFORMS.fullmatch(name):
        yield Problem("--env", "must not set a variable of the platform", name, "leave it out")
    elif SECRET_NAME.search(name) or redact(value) != value:
        yield Problem(
            "--env",
            "must not contain a secret, because everybody who may read the job could read it",
            name,
            f"use --secret {name}=SECRET",
        )


def _secret_problems(text: str, request: Request) -> Iterator[Problem]:
    variable, reference = _pair(text)
    if "=" not in text or not _VARIABLE.fullmatch(variable):
        remedy = "write it as VARIABLE=NAME"
        # The text may be the secret itself, so it is not shown.
        yield Problem("--secret", "must be a variable and the name of a secret", "***", remedy)
    elif _SET_BY_PLATFORMS.fullmatch(variable):
        remedy = "leave it out"
        yield Problem("--secret", "must not set a variable of the platform", variable, remedy)
    elif request.platform == "vertex":
        match = _MANAGED_SECRET.fullmatch(reference)
        if not match:
            rule = "must name a secret of Secret Manager"
            remedy = "write it as VARIABLE=projects/PROJECT/secrets/NAME[/versions/VERSION]"
            yield Problem("--secret", rule, f"{variable}=***", remedy)
        elif not (match["project"] or request.project):
            rule = "must name the project of the secret"
            yield Problem("--secret", rule, text, "add --project PROJECT")
    elif not _is_kubernetes_secret(reference):
        rule, remedy = "must name a Kubernetes Secret", "write it as VARIABLE=NAME or =NAME/KEY"
        yield Problem("--secret", rule, f"{variable}=***", remedy)


def _is_kubernetes_secret(reference: str) -> bool:
    name, slash, key = reference.partition("/")
    return is_object_name(name) and (not slash or is_secret_key(key))


def _repeated(request: Request) -> Iterator[Problem]:
    names = [_pair(text)[0] for text in (*request.environ, *request.secrets) if "=" in text]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield Problem("--env and --secret", "must set a variable once", name, "keep one of them")
