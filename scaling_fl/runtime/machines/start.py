"""How a worker process starts: as a new interpreter, or as a fork of a preloaded one.

To import torch and transformers takes seconds of CPU time. ``PreloadedProcess`` imports them once
for all workers of this machine, while the command still prepares the run.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

MIN_SHARED_BYTES = 256 * 2**20
"""With less shared memory, NCCL must not use shared memory."""

_PR_SET_CHILD_SUBREAPER = 36


class Process(Protocol):
    """A worker process, with the methods of ``subprocess.Popen``; it reads orders from stdin."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> IO[bytes] | None: ...
    @property
    def stdout(self) -> IO[bytes] | None: ...
    @property
    def stderr(self) -> IO[bytes] | None: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def kill(self) -> None: ...


class Starter(Protocol):
    """Starts the worker processes of this machine, one with each call."""

    def is_ready(self, patience_seconds: float) -> bool:
        """Wait at most ``patience_seconds``; say whether ``start`` can start a worker at once."""

    def start(self, environment: Mapping[str, str], keep_open: Sequence[int]) -> Process:
        """Start a worker in a new session; it inherits the file descriptors ``keep_open``."""

    def close(self) -> None:
        """Free what only further starts would need; the started workers go on."""


class FreshProcesses:
    """Starts each worker as a new interpreter."""

    def __init__(
        self, command: Sequence[str] = (sys.executable, "-m", "scaling_fl.jobs.worker")
    ) -> None:
        self._command = command

    def is_ready(self, patience_seconds: float) -> bool:
        return True

    def start(self, environment: Mapping[str, str], keep_open: Sequence[int]) -> Process:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            pass_fds=tuple(keep_open),
            start_new_session=True,  # Ctrl-C reaches only the parent, which then stops the workers
        )

    def close(self) -> None:
        pass


class PreloadedProcess:
    """Starts each worker as a fork of one process that has imported what workers need.

    That process runs ``scaling_fl.jobs.workers``. The parent of a worker ends after the fork, so
    this process adopts the worker and can read its exit code. If the fork fails, the worker starts
    as a new interpreter.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        self._replies = self._socket.makefile("rb")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scaling_fl.jobs.workers"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=dict(environment),
                start_new_session=True,
            )
        self._is_ready = False

    def is_ready(self, patience_seconds: float) -> bool:
        if not self._is_ready and select.select([self._socket], [], [], patience_seconds)[0]:
            self._replies.readline()
            self._is_ready = True
        return self._is_ready

    def start(self, environment: Mapping[str, str], keep_open: Sequence[int]) -> Process:
        with ExitStack() as stack:
            ours, theirs = zip(*(_pipe(stack, mode) for mode in ("wb", "rb", "rb")), strict=True)
            request = {"environment": dict(environment), "folder": os.getcwd()}
            try:
                pid = self._fork(request, [*theirs, *keep_open])
            except (OSError, ValueError):
                for stream in ours:
                    stream.close()
                return FreshProcesses().start(environment, keep_open)
        return AdoptedProcess(pid, *ours)

    def _fork(self, request: Mapping[str, object], descriptors: Sequence[int]) -> int:
        with _adopting_orphans():
            socket.send_fds(self._socket, [b"+"], descriptors)
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            return int(self._replies.readline())

    def close(self) -> None:
        self._replies.close()
        self._socket.close()
        self._process.kill()
        self._process.wait()


class LastingProcess(PreloadedProcess):
    """Is kept from run to run: the workers of one run do not end it."""

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        pass

    def end(self) -> None:
        """End the process; the workers that it has started go on."""
        super().close()


class AdoptedProcess:
    """A child process of this process that another process has forked."""

    def __init__(self, pid: int, stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self.pid, self.stdin, self.stdout, self.stderr = pid, stdin, stdout, stderr
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._collect(os.WNOHANG)

    def wait(self) -> int:
        code = self._collect(0)
        assert code is not None
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _collect(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def choose_starter(device: str, num_threads: int, environ: Mapping[str, str]) -> Starter:
    """Choose preloading where it can be."""
    if not can_preload(device, environ):
        return FreshProcesses()
    return PreloadedProcess(worker_environment(num_threads, environ))


def can_preload(device: str, environ: Mapping[str, str]) -> bool:
    """Say whether workers can be forked: on Linux, unless a GPU may be used or torchrun starts.

    A debugger of this process follows the workers only if this process starts them itself.
    """
    has_gpu = any(Path("/dev").glob("nvidia[0-9]*")) and device != "cpu"
    # A notebook's kernel imports the debugger at once, and hardly ever uses it.
    is_debugged = "debugpy" in sys.modules and "ipykernel" not in sys.modules
    is_elsewhere = sys.platform != "linux" or "TORCHELASTIC_RUN_ID" in environ
    return not (is_elsewhere or has_gpu or device == "cuda" or is_debugged)


def worker_environment(num_threads: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Make the environment of the workers: fixed threads, no secret of the trackers.

    The libraries read the number of threads when they are loaded.
    """
    inherited = {k: v for k, v in environ.items() if not k.startswith(("SACRED_", "MLFLOW_"))}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(num_threads))
    # Our own sentence reports a broken connection, not a trace of C++ frames.
    quiet = {"TORCH_CPP_LOG_LEVEL": environ.get("TORCH_CPP_LOG_LEVEL", "ERROR")}
    # A vector of a whole model in new memory costs a third of the time in large pages.
    pages = {"THP_MEM_ALLOC_ENABLE": environ.get("THP_MEM_ALLOC_ENABLE", "1")}
    fixed = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "true"}
    return (
        inherited
        | threads
        | quiet
        | pages
        | fixed
        | _small_shared_memory(Path("/dev/shm"), environ)
    )


def _small_shared_memory(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Disable NCCL's shared memory if there is little of it, as Docker's default of 64 MB."""
    if not folder.is_dir() or shutil.disk_usage(folder).total >= MIN_SHARED_BYTES:
        return {}
    return {"NCCL_SHM_DISABLE": environ.get("NCCL_SHM_DISABLE", "1")}


def _pipe(stack: ExitStack, mode: str) -> tuple[IO[bytes], int]:
    """Open a pipe; return our end and the worker's end. ``stack`` closes our copy of the latter."""
    read_end, write_end = os.pipe()
    ours, theirs = (write_end, read_end) if mode == "wb" else (read_end, write_end)
    stack.callback(os.close, theirs)
    return open(ours, mode), theirs


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Make this process adopt its descendants when their parent ends."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "orphans cannot be adopted")
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
