"""A real Slurm of one node on this machine, from Debian's slurm-wlm and munge."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
START_SECONDS = 60.0
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmctldPort={control_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Say what a Slurm of one's own needs and is not here; empty when all is."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: slurm-wlm and munge)"
    return "" if os.geteuid() == 0 else "its daemons start as root"


_PATH = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"


@dataclass(frozen=True)
class Slurm:
    """A running cluster; commands find it by the environment."""

    environment: dict[str, str]

    def ask(self, *argv: str) -> str:
        """Run a client of Slurm and return what it prints."""
        environ = os.environ | self.environment
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def states(self) -> list[str]:
        """List the states of all jobs that have not left the queue."""
        return self.ask("squeue", "--noheader", "--array", "--format=%T").split()


@contextmanager
def one_node_slurm(folder: Path) -> Iterator[Slurm]:
    """Run munge, the controller and the node's daemon until the context ends."""
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            folder=folder,
            control_port=free_port(),
            node_port=free_port(),
            cores=len(os.sched_getaffinity(0)),
        )
    )
    environment = {"SLURM_CONF": str(configuration), "PATH": _PATH}
    slurm = Slurm(environment)
    munge = ["--key-file", "key", "--socket", "socket", "--pid-file", "pid"]
    munge += ["--log-file", "log", "--seed-file", "seed"]
    places = [part if part.startswith("--") else str(folder / "munge" / part) for part in munge]
    daemons = [
        subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL)
        for command in (
            ["munged", "--force", "--foreground", *places],
            ["slurmctld", "-D"],
            ["slurmd", "-D"],
        )
    ]
    try:
        _wait_until_idle(slurm)
        yield slurm
        slurm.ask("scancel", "--user", "root")
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait()


def _wait_until_idle(slurm: Slurm) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if slurm.ask("sinfo", "--noheader", "--format=%T") == "idle":
                return
        except subprocess.CalledProcessError:
            pass
        time.sleep(0.2)
    raise RuntimeError("Slurm's node did not become idle")
