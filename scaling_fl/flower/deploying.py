"""Start a deployment on this machine, bring back what has died of it, and end it."""

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scaling_fl.core.errors import InputError, UserError
from scaling_fl.flower.certificates import (
    CA,
    PRIVATE,
    PUBLIC,
    SERVER,
    SERVER_KEY,
    write_certificates,
    write_node_key,
)
from scaling_fl.flower.control import toml_text
from scaling_fl.flower.deployment import (
    SUPERLINK,
    TEST,
    TRAIN,
    Deployment,
    Program,
    read_deployment,
)
from scaling_fl.flower.programs import free_port
from scaling_fl.flower.shares import deal
from scaling_fl.flower.signing import introduce
from scaling_fl.flower.superlink import (
    HOST,
    last_words,
    start_program,
    wait_for_health,
    write_connection,
)
from scaling_fl.runtime.storage.processes import place, process_start

LOG = "log.txt"
FILES = {"--data": TRAIN, "--test-data": TEST}
"""The file of a node that has its rows of a table, by the option that names the table."""
NUM_NODES = 2
ONLINE = "online"
ONLINE_SECONDS = MISSED_SECONDS = 120.0
_POLL_SECONDS = 2.0
Say = Callable[[str], None]


def start(
    folder: Path,
    num_nodes: int | None,
    tables: Mapping[str, str],
    environ: Mapping[str, str],
    say: Say,
) -> tuple[Deployment, list[str]]:
    """Start what does not run of a deployment; return it, and the names of what was started.

    ``num_nodes`` is None for as many as there are, or two. ``tables`` are dealt to the nodes, by
    the option that each was given as (see ``FILES``).

    Raises:
        UserError: the folder is that of another deployment, or a process does not start.
    """
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        found = _deployment(folder, num_nodes)
        if tables and found.is_alive(SUPERLINK):
            raise InputError(
                f"{' and '.join(tables)} must be given before nodes start, and those in {folder} "
                "are running; stop them first"
            )
        if all(found.is_alive(name) for name in (SUPERLINK, *found.nodes)):
            return found, []
        try:
            return found, _bring_up(found, tables, environ, say)
        except BaseException:
            found.end()
            raise


def stop(folder: Path) -> int:
    """End all processes of a deployment, and return how many there were.

    Raises:
        UserError: there is no deployment.
    """
    if (found := read_deployment(folder)) is None:
        raise UserError(f"{folder} must hold a deployment and does not; start one there")
    with _alone(found.folder):
        return found.end()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Have one command at a time change a deployment."""
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{folder} is being started or stopped by another command; wait for its end"
            ) from None
        yield


def _deployment(folder: Path, num_nodes: int | None) -> Deployment:
    found = read_deployment(folder)
    if found is None:
        if strange := [path.name for path in folder.iterdir() if path.name != "lock"]:
            raise InputError(
                f"{folder} must be empty or hold a deployment, got {min(strange)} in it; choose "
                "another folder"
            )
        return Deployment(folder, num_nodes or NUM_NODES)
    if num_nodes not in (None, found.num_nodes):
        raise InputError(
            f"--nodes must be {found.num_nodes} as when {folder} was made, got {num_nodes}; "
            "choose another folder for another federation"
        )
    return found


def _bring_up(
    found: Deployment, tables: Mapping[str, str], environ: Mapping[str, str], say: Say
) -> list[str]:
    started: list[str] = []
    if not found.is_alive(SUPERLINK):
        # Nodes that outlived it would look for it on a port that it no longer has.
        found.end()
        _make_folders(found)
        found.programs, found.place, found.cwd = {}, place(), str(Path.cwd())
        found.write()
        say("starting the SuperLink")
        _start_superlink(found, environ)
        started.append(SUPERLINK)
    for option, table in tables.items():
        targets = [found.node_folder(name) / FILES[option] for name in found.nodes]
        deal(table, targets, option=option)
    dead = [name for name in found.nodes if not found.is_alive(name)]
    _register(found, environ)
    _wait_until_missed(found, dead, environ, say)
    say(f"starting {', '.join(dead)}")
    for name in dead:
        _start_node(found, name, environ)
    _wait_until_online(found, environ)
    return started + dead


def _make_folders(found: Deployment) -> None:
    for name in (SUPERLINK, *found.nodes):
        folder = found.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        if name != SUPERLINK and not (folder / PRIVATE).exists():
            write_node_key(folder)
    introduce([found.node_folder(name) for name in found.nodes])


def _start_superlink(found: Deployment, environ: Mapping[str, str]) -> None:
    folder, port = found.folder / SUPERLINK, free_port()
    write_certificates(folder)
    write_connection(folder / "flwr", port, folder / CA)
    options = ["--host", HOST, "--port", str(port), "--enable-supernode-auth"]
    options += ["--ssl-ca-certfile", str(folder / CA), "--ssl-certfile", str(folder / SERVER)]
    options += ["--ssl-keyfile", str(folder / SERVER_KEY), "--database", str(folder / "state.db")]
    process = start_program(
        "flower-superlink",
        options,
        found.environ(SUPERLINK, environ),
        folder=Path(found.cwd),
        log=folder / LOG,
    )
    _keep(found, SUPERLINK, process.pid, port)
    wait_for_health(process, port, folder / LOG, folder / CA)


def _keep(found: Deployment, name: str, pid: int, port: int) -> None:
    found.programs[name] = Program(pid, process_start(pid) or "", port)
    found.write()


def _register(found: Deployment, environ: Mapping[str, str]) -> None:
    """Make the nodes known that the SuperLink's database does not know yet."""
    link = found.control(environ)
    known = link.nodes()
    for name in found.nodes:
        if found.registered.get(name) not in known:
            found.registered[name] = link.register(found.node_folder(name) / PUBLIC)
            found.write()


def _wait_until_missed(
    found: Deployment, dead: list[str], environ: Mapping[str, str], say: Say
) -> None:
    """Wait until Flower has seen which nodes are gone: it lets no node in that it takes for one."""
    link = found.control(environ)
    deadline = time.monotonic() + MISSED_SECONDS
    is_told = False
    while ONLINE in {link.nodes().get(found.registered[name]) for name in dead}:
        if time.monotonic() > deadline:
            raise UserError(f"Flower did not miss {', '.join(dead)} in {MISSED_SECONDS:.0f} s")
        if not is_told:
            say("waiting until Flower has missed what was killed, which takes up to a minute")
        is_told = True
        time.sleep(_POLL_SECONDS)


def _start_node(found: Deployment, name: str, environ: Mapping[str, str]) -> None:
    folder, port = found.node_folder(name), free_port()
    (folder / "node.toml").write_text(_node_config(found, name), encoding="utf-8")
    options = ["--superlink", f"{HOST}:{found.programs[SUPERLINK].port}"]
    options += ["--root-certificates", str(found.ca)]
    options += ["--auth-supernode-private-key", str(folder / PRIVATE)]
    options += ["--host", HOST, "--port", str(port), "--node-config", str(folder / "node.toml")]
    process = start_program(
        "flower-supernode",
        options,
        found.environ(name, environ),
        folder=folder,
        log=folder / LOG,
    )
    _keep(found, name, process.pid, port)


def _node_config(found: Deployment, name: str) -> str:
    folder = found.node_folder(name)
    config: dict[str, str | int] = {
        "partition-id": found.nodes.index(name),
        "num-partitions": found.num_nodes,
        "folder": str(folder),
    }
    for key, file in {"train-path": TRAIN, "test-path": TEST}.items():
        if (folder / file).exists():
            config[key] = str(folder / file)
    return "".join(f"{key} = {toml_text(value)}\n" for key, value in config.items())


def _wait_until_online(found: Deployment, environ: Mapping[str, str]) -> None:
    link = found.control(environ)
    deadline = time.monotonic() + ONLINE_SECONDS
    while True:
        status = link.nodes()
        late = [name for name in found.nodes if status.get(found.registered[name]) != ONLINE]
        if not late:
            return
        for name in (name for name in found.nodes if not found.is_alive(name)):
            said = last_words(found.node_folder(name) / LOG)
            raise UserError(f"{name} did not start: {said}")
        if time.monotonic() > deadline:
            raise UserError(
                f"{late[0]} did not come online in {ONLINE_SECONDS:.0f} s; see "
                f"{found.node_folder(late[0]) / LOG}"
            )
        time.sleep(_POLL_SECONDS)
