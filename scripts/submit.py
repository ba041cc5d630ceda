#!/usr/bin/env python3
"""Submit a command of this project to Kubeflow, Kubernetes, Slurm or Vertex AI.

``scripts/submit.py PLATFORM --nodes 2 --gpus 4 --image IMAGE -- scripts/train_federated.py with
...`` fills the manifest of the platform in ``deploy/`` and submits it by ``kubectl``, ``sbatch`` or
``gcloud``. With ``--dry-run``, the manifest is written to standard output and not submitted.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.endings import Misused, end, show, stage  # noqa: E402
from scaling_fl.submission import manifests, slurm  # noqa: E402
from scaling_fl.submission.clients import submit, submit_script  # noqa: E402
from scaling_fl.submission.command import (  # noqa: E402
    TRAINING,
    TrainingCommand,
    queue_problems,
    script_in_project,
    script_problems,
)
from scaling_fl.submission.request import Request, name_of_job, problems  # noqa: E402

_TRAIN = "scripts/train_federated.py with demo job_name=my_job"
_EXAMPLES = {
    "kubeflow-pytorchjob": f"""
  scripts/submit.py kubeflow-pytorchjob --nodes 2 --gpus 4 \\
      --image registry.example.com/scaling-fl:1 \\
      --secret SACRED_MONGO_URI=mongo/uri \\
      -- {_TRAIN} \\
      checkpoints_dir=gs://bucket/my_job""",
    "kubeflow-trainjob": f"""
  scripts/submit.py kubeflow-trainjob --nodes 2 --gpus 4 \\
      --image registry.example.com/scaling-fl:1 --namespace research \\
      -- {_TRAIN} \\
      checkpoints_dir=gs://bucket/my_job""",
    "kubernetes": f"""
  scripts/submit.py kubernetes --gpus 4 --dry-run \\
      --image registry.example.com/scaling-fl:1 \\
      -- {_TRAIN} \\
      checkpoints_dir=s3://bucket/my_job""",
    "slurm": f"""
  scripts/submit.py slurm --nodes 2 --gpus 4 --partition gpu --time 8:00:00 \\
      -- {_TRAIN}""",
    "vertex": f"""
  scripts/submit.py vertex --nodes 2 --gpus 4 --spot \\
      --project my-project --region us-central1 \\
      --image us-docker.pkg.dev/my-project/images/scaling-fl:1 \\
      --secret SACRED_MONGO_URI=mongo \\
      -- {_TRAIN} \\
      checkpoints_dir=gs://bucket/my_job""",
}
_EPILOG = f"""\
examples:{_EXAMPLES["kubernetes"]}{_EXAMPLES["vertex"]}

PLATFORM --help shows a platform's options and an example. With --dry-run the
manifest is shown and not submitted.

Exit code: 0 when submitted, 2 on misuse, otherwise that of kubectl, sbatch or
gcloud."""
_DESCRIPTIONS = {
    "kubeflow-pytorchjob": "A PyTorchJob of Kubeflow's training operator (kubeflow.org/v1).",
    "kubeflow-trainjob": "A TrainJob of Kubeflow Trainer v2, with the runtime it refers to.",
    "kubernetes": "A plain Kubernetes Job, on one machine.",
    "slurm": "A batch job of Slurm that runs this checkout.",
    "vertex": "A custom job of Vertex AI.",
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    own, command = _split(argv)
    options = _parser().parse_args(own)
    request = _request(options, command)
    return end(lambda: _submit(request, is_dry=options.dry_run), with_environment=False)


def _submit(request: Request, *, is_dry: bool) -> None:
    try:
        if request.platform == "slurm":
            text = slurm.fill(slurm.read(ROOT), _complete(request, []))
            send = partial(submit_script, text, ROOT)
        else:
            documents = manifests.read(request.platform, ROOT)
            request = _complete(request, documents)
            manifests.fill(documents, request)
            text = manifests.write(documents)
            send = partial(submit, documents, request)
    except manifests.ManifestError as error:
        raise Misused(str(error)) from None
    if is_dry:
        show(text.rstrip("\n"))
    else:
        send()


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Separate the options of this script from the command after ``--``."""
    if "--" not in argv:
        return argv, []
    end = argv.index("--")
    return argv[:end], argv[end + 1 :]


def _complete(request: Request, documents: list[manifests.Document]) -> Request:
    """Add the settings that the platform needs to the training command.

    Raises:
        Misused: with all problems of the options and of the command.
    """
    found = list(script_problems(request.arguments, ROOT))
    # Slurm's nodes share the disk that holds this checkout.
    mounts = manifests.lasting_mounts(documents, request.platform) if documents else None
    if request.arguments and script_in_project(request.arguments[0]) == TRAINING:
        training = TrainingCommand(request.arguments, root=ROOT)
        name = request.name or (name_of_job(training.job_name) if training.job_name else "")
        training.complete(name=name, gpus=request.gpus)
        found += training.problems(nodes=request.nodes, gpus=request.gpus, mounts=mounts)
        request = replace(request, name=name, arguments=training.arguments)
        if training.added:
            stage(f"added to the command: {' '.join(training.added)}")
    elif request.serves_queue:
        found += queue_problems(request.arguments, mounts)
    found = [*problems(request), *manifests.machine_problems(documents, request), *found]
    if found:
        count = f"{len(found)} problem{'s'[: len(found) > 1]}:"
        raise Misused("\n".join([count, *map(str, found)]))
    return request


def _request(options: argparse.Namespace, command: list[str]) -> Request:
    given = vars(options)
    known = {name: given[name] for name in Request.__dataclass_fields__ if name in given}
    return Request(**{"image": ""} | known, arguments=command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/submit.py",
        description=__doc__.split("\n\n")[0] if __doc__ else None,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    platforms = parser.add_subparsers(dest="platform", metavar="PLATFORM", required=True)
    for name, description in _DESCRIPTIONS.items():
        platform = platforms.add_parser(
            name,
            help=description,
            description=description,
            usage=f"scripts/submit.py {name} [options] --gpus N"
            f"{' --image IMAGE' if name != 'slurm' else ''} -- ...",
            epilog=f"example:{_EXAMPLES[name]}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _add_common_options(platform)
        if name != "slurm":
            platform.add_argument("--image", required=True, help="container image of this project")
        _ADD_OPTIONS.get(name, _add_kubernetes_options)(platform)
    return parser


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--nodes", type=int, default=1, metavar="N", help="machines (default: 1)")
    add("--gpus", type=int, required=True, metavar="N", help="GPUs of each machine, 0 or more")
    add("--name", default="", help="name of the job on the platform (default: from job_name)")
    add(
        "--env",
        dest="environ",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable of the containers; may be repeated",
    )
    add("--dry-run", action="store_true", help="print the manifest and do not submit it")


def _add_kubernetes_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--namespace", help="default: that of kubectl's context")
    add("--kueue", metavar="QUEUE", help="the queue of Kueue that decides when the job may start")
    add("--service-account", metavar="NAME", help="Kubernetes service account of the pods")
    add(
        "--secret",
        dest="secrets",
        action="append",
        default=[],
        metavar="VARIABLE=NAME[/KEY]",
        help="a variable whose value is in a Kubernetes Secret (key default: the variable's name)",
    )


def _add_vertex_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--project", help="default: that of gcloud's configuration")
    add("--region", help="default: that of gcloud's configuration")
    add("--machine-type", metavar="TYPE", help="default: that of deploy/vertex-custom-job.yaml")
    add("--accelerator-type", metavar="TYPE", help="the GPUs of --machine-type")
    add("--spot", action="store_true", help="run on Spot VMs, which Google may stop at any time")
    add("--service-account", metavar="EMAIL", help="Google service account of the job")
    add(
        "--secret",
        dest="secrets",
        action="append",
        default=[],
        metavar="VARIABLE=NAME",
        help="a variable whose value is in Secret Manager: NAME (with --project) or "
        "projects/PROJECT/secrets/NAME[/versions/VERSION]",
    )


def _add_slurm_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--partition", metavar="NAME", help="default: that of Slurm")
    add("--account", metavar="NAME", help="default: that of Slurm")
    add("--time", dest="time_limit", metavar="H:MM:SS", help="default: that of the partition")


_ADD_OPTIONS = {"vertex": _add_vertex_options, "slurm": _add_slurm_options}


if __name__ == "__main__":
    sys.exit(main())
