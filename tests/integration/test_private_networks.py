"""Two machines with networks, names and /etc/hosts of their own, as Debian sets them up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# Two network namespaces, joined by a cable. Each has a name that its own /etc/hosts maps to the
# loopback; the second one knows the first by its address.
MACHINES = r"""
set -eu
printf '127.0.0.1 localhost\n127.0.1.1 first\n' > hosts-first
printf '127.0.0.1 localhost\n127.0.1.1 second\n10.9.0.1 first\n' > hosts-second
mount --bind hosts-first /etc/hosts; hostname first; ip link set lo up
unshare -n -m -u sleep 100 & other=$!
trap 'kill $other' EXIT
for part in net mnt uts; do
  while [ $(readlink /proc/$other/ns/$part) = $(readlink /proc/self/ns/$part) ]; do sleep 0.05; done
done
ip link add here type veth peer name there
ip link set there netns $other; ip addr add 10.9.0.1/24 dev here; ip link set here up
second() { nsenter -t $other -n -m -u "$@"; }
second ip addr add 10.9.0.2/24 dev there
second ip link set there up; second ip link set lo up
second mount --bind $PWD/hosts-second /etc/hosts; second hostname second
second "$@" 1 > second.json & w=$!
"$@" 0 > first.json
wait $w
"""
WORKER = """
import json, os, sys, torch
from scaling_fl.runtime.machines.exchange import connect
from scaling_fl.runtime.machines.meeting import Meeting
rank, notes = int(sys.argv[1]), []
place = {"node_rank": rank, "num_nodes": 2, "local_index": 0, "host": "first", "port": 29500}
exchange = connect(Meeting(sites=[0], **place), torch.device("cpu"), notes.append)
total = exchange.total(torch.arange(3) * 10**rank).tolist()
exchange.close()
print(json.dumps([total, os.environ["GLOO_SOCKET_IFNAME"]]))
"""


def test_names_that_lead_to_the_loopback_do_not_keep_machines_apart(tmp_path: Path) -> None:
    unshare = ["unshare", "-r", "-n", "-m", "-u"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system allows no private networks")
    done = subprocess.run(
        [*unshare, "bash", "-c", MACHINES, "machines", sys.executable, "-c", WORKER],
        cwd=tmp_path,
        env=os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"},  # as workers have it
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / f"{n}.json").read_text()) for n in ("first", "second")]
    assert found == [[[0, 11, 22], "here"], [[0, 11, 22], "there"]]
    assert done.stderr == ""
