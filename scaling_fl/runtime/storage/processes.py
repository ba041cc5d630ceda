"""The identity of a process: a pid alone is not enough, because the kernel uses pids again."""

import os
import socket
from pathlib import Path


def process_start(pid: int) -> str | None:
    """Return when a process of this machine started, in ticks of the kernel; None if it is dead.

    Without ``/proc``, a living process has the empty string.
    """
    if Path("/proc/self/stat").exists():
        return _start_in_proc(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def _start_in_proc(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the name of the program in parentheses; it may contain any character.
    fields = text.rpartition(")")[2].split()
    # A zombie has no locks and no files: it only waits until its parent reads its status.
    return None if fields[0] in "ZX" else fields[19]


def place() -> str:
    """Name the set of processes in which a pid is unique: HOST/BOOT/PID_NAMESPACE.

    Two containers may have the same host name and still not see each other's processes.
    """
    names = [socket.gethostname()]
    for read in (_boot, _namespace):
        try:
            names.append(read())
        except OSError:
            names.append("")
    return "/".join(names)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _namespace() -> str:
    return str(os.stat("/proc/self/ns/pid").st_ino)
