"""Who a process is: a pid alone names nobody, because the kernel gives it out again."""

import os
import socket
from pathlib import Path


def process_start(pid: int) -> str | None:
    """Tell when a process of this machine started, in the kernel's ticks; None when it is dead.

    Where there is no ``/proc`` a living process gives the empty string.
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
    # The second field is the program's name in parentheses and may itself hold any character.
    fields = text.rpartition(")")[2].split()
    # A zombie holds neither locks nor files: it only waits for its parent to read its status.
    return None if fields[0] in "ZX" else fields[19]


def place() -> str:
    """Name the set of processes in which a pid means something: host, boot and pid namespace.

    Two containers may share a host name and still not see each other's processes.
    """
    parts = [socket.gethostname()]
    for read in (_boot, _namespace):
        try:
            parts.append(read())
        except OSError:
            parts.append("")
    return "/".join(parts)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _namespace() -> str:
    return str(os.stat("/proc/self/ns/pid").st_ino)
