"""A deployment knows its processes, and takes no other process and no other folder for its own."""

import fcntl
import os
from pathlib import Path

import pytest

from scaling_fl.core.errors import InputError, UserError
from scaling_fl.flower.deploying import start, stop
from scaling_fl.flower.deployment import (
    RECORD,
    SUPERLINK,
    Deployment,
    Program,
    read_deployment,
)
from scaling_fl.runtime.storage.processes import process_start


def this_process() -> Program:
    return Program(os.getpid(), process_start(os.getpid()) or "", 1)


def begin(folder: Path, num_nodes: int | None = None, **tables: str) -> Deployment:
    given = {f"--{name}": table for name, table in tables.items()}
    found, started = start(folder, num_nodes, given, {}, lambda text: None)
    assert started == []
    return found


def running(folder: Path) -> Deployment:
    """A deployment whose processes are, as it seems, all alive."""
    made = Deployment(folder, 2)
    made.programs = {name: this_process() for name in (SUPERLINK, *made.nodes)}
    made.write()
    return made


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = running(tmp_path)
    made.registered = {"node0": "17"}
    made.write()
    assert read_deployment(tmp_path) == made


def test_a_process_that_has_only_the_pid_is_another(tmp_path: Path) -> None:
    made = running(tmp_path)
    assert made.living() == {os.getpid(): this_process().start}
    made.programs["node0"] = Program(os.getpid(), "earlier", 1)
    assert [made.is_alive(name) for name in made.nodes] == [False, True]


def test_processes_before_a_boot_or_on_another_machine_are_none(tmp_path: Path) -> None:
    made = running(tmp_path)
    made.place = "elsewhere/boot/1"
    assert made.living() == {}


def test_a_second_start_starts_nothing(tmp_path: Path) -> None:
    made = running(tmp_path)
    assert begin(tmp_path) == begin(tmp_path, 2) == made


def test_another_number_of_nodes_is_refused(tmp_path: Path) -> None:
    running(tmp_path)
    with pytest.raises(InputError, match=r"^--nodes must be 2 as when .* was made, got 3; choose"):
        begin(tmp_path, 3)


def test_data_for_nodes_that_run_are_refused(tmp_path: Path) -> None:
    running(tmp_path)
    with pytest.raises(InputError, match=r"are running; stop them first$"):
        begin(tmp_path, data="table.csv")


def test_a_folder_with_other_things_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"must be empty or hold a deployment, got thesis\.tex"):
        begin(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"programs": {}, "colour": 1}'])
def test_a_file_that_is_none_of_a_deployment_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(UserError, match="must be the file of a deployment"):
        begin(tmp_path)


def test_two_commands_do_not_change_a_deployment_at_once(tmp_path: Path) -> None:
    running(tmp_path)
    with (tmp_path / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for change in (begin, stop):
            with pytest.raises(UserError, match="by another command; wait for its end"):
                change(tmp_path)
    assert begin(tmp_path).living()


def test_where_there_is_none_nothing_can_be_stopped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must hold a deployment and does not"):
        stop(tmp_path)


def test_to_stop_what_does_not_run_is_no_error(tmp_path: Path) -> None:
    Deployment(tmp_path, 2).write()
    assert stop(tmp_path) == 0
