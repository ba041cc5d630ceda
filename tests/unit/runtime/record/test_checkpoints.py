import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from scaling_fl.core.digest import digest
from scaling_fl.core.errors import UserError
from scaling_fl.core.vector import Layout
from scaling_fl.runtime.record.checkpoints import (
    Checkpoint,
    CheckpointError,
    CheckpointMismatch,
    Checkpoints,
    chain_digest,
)
from scaling_fl.runtime.record.manifest import check_file, parse_manifest
from scaling_fl.runtime.record.recorder import check_restorable
from scaling_fl.runtime.storage import LocalStorage, StorageError, open_storage
from scaling_fl.runtime.storage.base import Storage
from tests.dice import seed_of_the_day

LAYOUT = Layout(("body.weight", "body.empty", "head.bias"), ((4, 5), (0, 3), (2,)))
IDENTITY = {"model": "bert", "task": "agnews", "labels": ["World", "Sports"]}
GOLDEN = "9aaa9200c7049575fd4f752f771791befe44dd46bafd8a0f163a1263c4f08692"
FILES = ["state.safetensors", "optimiser.safetensors", "config.json", "manifest.json"]


class Bench:
    """Checkpoints of one place with their notes, and short forms of saving and loading."""

    def __init__(self, storage: Storage, keep_last: int | None = None) -> None:
        self.storage = storage
        self.notes: list[str] = []
        self.checkpoints = Checkpoints(storage, keep_last, self.notes.append)

    def save(self, number: int, **changes: Any) -> str:
        values: dict[str, Any] = {
            "vector": torch.full((LAYOUT.size,), float(number)),
            "layout": LAYOUT,
            "optimiser": {"momentum": torch.full((LAYOUT.size,), -float(number))},
            "digest": f"d{number}",
            "previous_digest": f"d{number - 1}",
            "cohort": [0, 1],
            "config": {"num_rounds": 3},
            "identity": IDENTITY,
        }
        return self.checkpoints.save(round=number, **(values | changes))

    def loaded_round(self) -> int | None:
        found = self.checkpoints.load_latest(LAYOUT, IDENTITY)
        if found is None:
            return None
        assert torch.equal(found.vector, torch.full((LAYOUT.size,), float(found.round)))
        assert torch.equal(found.optimiser["momentum"], -found.vector)
        assert found.digest == f"d{found.round}"
        return found.round


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(LocalStorage(tmp_path / "job"))


def assert_every_manifest_is_true(storage: Storage) -> list[int]:
    """Check law 4 for all rounds: where there is a manifest, there is all that it lists."""
    rounds = Checkpoints(storage, None, pytest.fail).rounds()
    for number in rounds:
        folder = f"round-{number:06d}"
        manifest = parse_manifest(storage.read_bytes(f"{folder}/manifest.json"), number)
        for name, expected in manifest["files"].items():
            with storage.local_copy(f"{folder}/{name}") as path:
                check_file(path, name, expected)
    return rounds


def test_a_checkpoint_comes_back_bit_for_bit(any_url: str) -> None:
    bits = torch.randint(-(2**31), 2**31, (LAYOUT.size,), dtype=torch.int64).to(torch.int32)
    bits[~bits.view(torch.float32).isfinite()] = 1  # the smallest number of all
    vector = bits.view(torch.float32)
    optimiser = {
        "momentum": torch.randn(LAYOUT.size),
        "variance": torch.randn(6, 4).t(),
        "step": torch.tensor(7),
        "half": torch.randn(3).to(torch.bfloat16),
        "none": torch.empty(0),
        "mask": torch.tensor([True, False]),
    }
    bench = Bench(open_storage(any_url))
    progress = {"total_bytes": 2**60 + 1, "float": 0.1}
    where = bench.save(12, vector=vector, optimiser=optimiser, progress=progress)
    assert where == f"{bench.storage.url}/round-000012"
    found = Bench(open_storage(any_url)).checkpoints.load_latest(LAYOUT, IDENTITY)
    assert found is not None
    assert (found.round, found.digest, found.manifest["cohort"]) == (12, "d12", [0, 1])
    assert found.manifest["progress"] == progress
    assert torch.equal(found.vector.view(torch.int32), bits)
    assert found.optimiser.keys() == optimiser.keys()
    for name, value in optimiser.items():
        assert found.optimiser[name].dtype == value.dtype
        assert torch.equal(found.optimiser[name], value)
    assert bench.storage.names() == sorted(f"round-000012/{name}" for name in FILES)


def test_the_state_is_a_safetensors_file_of_named_tensors(bench: Bench) -> None:
    where = Path(bench.save(1))
    tensors = load_file(where / "state.safetensors")
    assert {name: tuple(value.shape) for name, value in tensors.items()} == dict(
        zip(LAYOUT.names, LAYOUT.shapes, strict=True)
    )
    manifest = json.loads((where / "manifest.json").read_text())
    assert manifest["layout"] == LAYOUT.to_json()
    assert json.loads((where / "config.json").read_text()) == {"num_rounds": 3}


def test_nothing_saved_means_nothing_loaded(any_url: str) -> None:
    assert Bench(open_storage(any_url)).loaded_round() is None


class CutStorage(LocalStorage):
    """A storage whose process dies after a number of files was published or deleted."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(folder)
        self.count = count

    def publish(self, staging: Path, folder: str, order: Sequence[str]) -> None:
        super().publish(staging, folder, order[: self.count])
        raise StorageError("cut.")


class CutDeletion(CutStorage):
    publish = LocalStorage.publish

    def delete(self, names: Iterable[str]) -> None:
        names = list(names)
        super().delete(names[: self.count])
        if len(names) > 1:
            raise StorageError("cut.")


@pytest.mark.parametrize("count", range(5))
def test_the_manifest_comes_last_and_hides_a_torn_checkpoint(bench: Bench, count: int) -> None:
    bench.save(1)
    folder = Path(bench.storage.url)
    with pytest.raises(CheckpointError):
        Bench(CutStorage(folder, count)).save(2)
    assert bench.loaded_round() == (2 if count == 4 else 1)
    assert bench.notes == []
    bench.save(3)
    left = {name.partition("/")[0] for name in bench.storage.names()}
    assert ("round-000002" in left) == (count == 4)


@pytest.mark.parametrize("count", range(5))
def test_deleting_begins_with_the_manifest(bench: Bench, count: int) -> None:
    for number in (1, 2):
        bench.save(number)
    Bench(CutDeletion(Path(bench.storage.url), count), keep_last=1).save(3)
    assert assert_every_manifest_is_true(bench.storage) == ([1, 2, 3] if count == 0 else [2, 3])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "shorten", "lengthen", "empty", "remove"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    bench: Bench, name: str, damage: str
) -> None:
    for number in (1, 2):
        bench.save(number)
    path = Path(bench.storage.url) / "round-000002" / name
    data = path.read_bytes()
    middle = len(data) // 2
    match damage:
        case "flip":
            path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        case "shorten":
            path.write_bytes(data[:-1])
        case "lengthen":
            path.write_bytes(data + b"\0")
        case "empty":
            path.write_bytes(b"")
        case "remove":
            path.unlink()
    assert bench.loaded_round() == 1
    is_noted = not (name == "manifest.json" and damage == "remove")
    assert ["round-000002 is not whole" in note for note in bench.notes] == [True] * is_noted
    retaining = Bench(bench.storage, keep_last=1)
    assert retaining.loaded_round() == 1
    retaining.save(2)
    assert retaining.loaded_round() == 2


def test_a_torn_newest_does_not_push_out_a_whole_one(bench: Bench) -> None:
    for number in (1, 9):
        bench.save(number)
    (Path(bench.storage.url) / "round-000009" / "config.json").unlink()
    resumed = Bench(bench.storage, keep_last=1)
    assert resumed.loaded_round() == 1
    resumed.save(2)
    assert resumed.checkpoints.rounds() == [2]
    assert Bench(bench.storage).loaded_round() == 2


def test_retention_keeps_the_last_ones(any_url: str) -> None:
    bench = Bench(open_storage(any_url), keep_last=2)
    for number in (1, 2, 3, 10):
        bench.save(number)
    assert bench.checkpoints.rounds() == [3, 10]
    assert len(bench.storage.names()) == 8
    assert bench.loaded_round() == 10


def test_without_retention_all_are_kept(bench: Bench) -> None:
    for number in range(1, 6):
        bench.save(number)
    assert bench.checkpoints.rounds() == [1, 2, 3, 4, 5]


def test_a_round_can_be_saved_again(any_url: str) -> None:
    bench = Bench(open_storage(any_url))
    bench.save(1, vector=torch.zeros(LAYOUT.size))
    bench.save(1)
    assert bench.loaded_round() == 1


def test_foreign_files_are_neither_read_nor_removed(any_url: str) -> None:
    storage = open_storage(any_url)
    foreign = [
        "claim.json",
        "round-000007/notes.txt",
        "round-7/manifest.json",
        "round-000008.pt",
        "rounds/round-000009/manifest.json",
        "round-000003/deeper/manifest.json",
    ]
    for name in foreign:
        storage.write_bytes(name, b"{}")
    bench = Bench(storage, keep_last=1)
    assert bench.loaded_round() is None
    for number in (1, 2):
        bench.save(number)
    assert bench.loaded_round() == 2
    assert set(foreign) < set(storage.names())
    assert bench.notes == []


def test_another_task_or_model_is_refused_naming_both(bench: Bench) -> None:
    bench.save(1)
    other = {"model": "albert", "task": "agnews", "labels": ["World"], "adapter": None}
    with pytest.raises(CheckpointMismatch) as caught:
        bench.checkpoints.load_latest(LAYOUT, other)
    text = str(caught.value)
    assert 'model was "bert", is now "albert"' in text
    assert 'labels was ["World", "Sports"], is now ["World"]' in text
    assert "adapter was not set" not in text  # null is how a setting is not set
    assert "task was" not in text
    assert "round-000001" in text
    assert "another job_name or checkpoints_dir" in text
    assert "\n" not in text


def test_another_layout_is_refused_naming_the_first_differences(bench: Bench) -> None:
    bench.save(1)
    names = ("body.weight", "body.empty", "classifier.bias", "a", "b", "c")
    other = Layout(names, ((4, 6), (0, 3), (2,), (1,), (1,), (1,)))
    with pytest.raises(CheckpointMismatch) as caught:
        bench.checkpoints.load_latest(other, IDENTITY)
    text = str(caught.value)
    assert "parameter 0 was body.weight [4, 5], is now body.weight [4, 6]" in text
    assert "parameter 2 was head.bias [2], is now classifier.bias [2]" in text
    assert "parameter 3 was absent, is now a [1]" in text
    assert "and 2 more parameters differ" in text


def test_a_mismatch_removes_nothing(bench: Bench) -> None:
    bench.save(1)
    with pytest.raises(CheckpointMismatch):
        bench.checkpoints.load_latest(LAYOUT, {"model": "albert"})
    assert bench.loaded_round() == 1


def test_a_tuple_in_the_identity_equals_its_stored_list(bench: Bench) -> None:
    bench.save(1)
    assert bench.checkpoints.load_latest(LAYOUT, IDENTITY | {"labels": ("World", "Sports")})


def test_only_the_first_differences_are_named_down_to_the_single_value(bench: Bench) -> None:
    owners = {"num_clients": 4, "data": ["a1b2"]}
    bench.save(1, identity=IDENTITY | {"owners": owners})
    other = {"model": "albert", "task": "imdb", "labels": ["World", "Sport"], "owners": owners}
    other["owners"] = owners | {"num_clients": 8}
    with pytest.raises(CheckpointMismatch) as caught:
        bench.checkpoints.load_latest(LAYOUT, other)
    assert str(caught.value).endswith(
        'round-000001 cannot be continued: labels[1] was "Sports", is now "Sport"; model was '
        '"bert", is now "albert"; owners.num_clients was 4, is now 8; and 1 more settings differ; '
        "restore the old settings, or start anew with another job_name or checkpoints_dir."
    )


def test_a_later_format_is_refused_not_skipped(bench: Bench) -> None:
    path = Path(bench.save(1)) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(CheckpointMismatch, match="got format 2"):
        bench.loaded_round()


def test_tensors_that_contradict_the_manifest_are_not_loaded(bench: Bench) -> None:
    where = Path(bench.save(1))
    bench.save(2)
    state = Path(bench.storage.url) / "round-000002" / "state.safetensors"
    tensors = load_file(where / "state.safetensors")
    save_file({name: value.to(torch.float64) for name, value in tensors.items()}, state)
    assert bench.loaded_round() == 1


def rewrite_manifest(bench: Bench, number: int, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest, with the hash that makes it look as it was written."""
    path = Path(bench.storage.url) / f"round-{number:06d}" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    change(manifest)
    try:
        path.write_text(json.dumps(manifest | {"sha256": digest(manifest)}))
    except TypeError:
        path.write_text(json.dumps(manifest))


MISSING = object()
WRONG = [None, True, -1, 2**70, 1.5, "text", [], {}, [[]], {"": -1}, float("nan")]
PATHS = [
    *((name,) for name in ("round", "digest", "cohort", "identity", "progress", "layout", "dtype")),
    *(("progress", name) for name in ("total_bytes", "num_threads", "computation")),
    ("files",),
    *(("files", name) for name in FILES[:3]),
    *(("files", FILES[0], name) for name in ("bytes", "sha256")),
    ("layout", 0),
    ("layout", 0, 0),
    ("layout", 0, 1),
    ("layout", 0, 1, 0),
    ("cohort", 0),
    ("format",),
]
PROGRESS = {"total_bytes": 7, "num_threads": 1, "computation": {}}


def put(manifest: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    """Put a value into a manifest; MISSING takes away what is there."""
    *parents, last = path
    place: Any = manifest
    for key in parents:
        place = place[key]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value


def loaded_or_refused(load: Callable[[], Checkpoint | None]) -> int | str:
    """Load, and return the round, or the sentence that refuses it."""
    try:
        found = load()
    except UserError as refusal:
        return str(refusal)
    assert found is not None
    return found.round


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_a_manifest_with_a_wrong_value_is_refused_or_gives_way(
    bench: Bench, path: tuple[Any, ...]
) -> None:
    """Whoever wrote it hashed it well; no exception but one sentence may come of it."""
    for number in (1, 2):
        bench.save(number, progress=PROGRESS)
    manifest = Path(bench.storage.url) / "round-000002" / "manifest.json"
    pristine = manifest.read_bytes()
    latest = partial(bench.checkpoints.load_latest, LAYOUT, IDENTITY, check_restorable)
    for value in (MISSING, *WRONG):
        rewrite_manifest(bench, 2, partial(put, path=path, value=value))
        for load in (latest, partial(bench.checkpoints.load, 2)):
            came_to = loaded_or_refused(load)
            assert came_to in (1, 2) or "\n" not in str(came_to)
        manifest.write_bytes(pristine)
    assert bench.loaded_round() == 2


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("layout",), MISSING, "its manifest lacks layout"),
        (("files", "config.json"), MISSING, "its manifest lacks files.config.json"),
        (("cohort",), "all", "its manifest has no valid value for cohort"),
        (("round",), 1, "its manifest is that of round 1"),
        (("layout", 0, 1, 0), 10**9, "its layout is larger than its state"),
        (("progress", "total_bytes"), MISSING, "its manifest lacks progress.total_bytes"),
    ],
)
def test_a_manifest_that_was_hashed_well_and_is_wrong_says_how(
    bench: Bench, path: tuple[Any, ...], value: Any, reason: str
) -> None:
    for number in (1, 2):
        bench.save(number, progress=PROGRESS, optimiser={})
    rewrite_manifest(bench, 2, partial(put, path=path, value=value))
    found = bench.checkpoints.load_latest(LAYOUT, IDENTITY, check_restorable)
    assert found is not None
    assert found.round == 1
    assert f"round-000002 is not whole ({reason}); it is skipped" in bench.notes[0]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "loop", "dangling"])
def test_what_is_no_file_gives_way_to_the_round_before(bench: Bench, name: str, kind: str) -> None:
    for number in (1, 2):
        bench.save(number)
    path = Path(bench.storage.url) / "round-000002" / name
    path.unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "dangling":
            path.symlink_to("nowhere")
    assert bench.loaded_round() == 1


def test_values_that_no_round_makes_are_a_damaged_checkpoint(bench: Bench) -> None:
    bench.save(1, progress=PROGRESS, optimiser={})
    broken = torch.ones(LAYOUT.size)
    broken[3] = float("nan")
    bench.save(2, progress=PROGRESS, optimiser={}, vector=broken)
    momentum = {"optimiser.momentum": broken}
    bench.save(3, progress=PROGRESS, optimiser=momentum)
    found = bench.checkpoints.load_latest(LAYOUT, IDENTITY, check_restorable)
    assert found is not None
    assert found.round == 1
    assert "(the global vector holds values that are not finite)" in bench.notes[1]
    assert "(optimiser.momentum holds values that are not finite)" in bench.notes[0]
    with pytest.raises(CheckpointError, match="the global vector holds values that are not finit"):
        bench.checkpoints.load(2)


def test_when_none_is_whole_the_job_stops_and_nothing_is_removed(bench: Bench) -> None:
    for number in range(1, 6):
        bench.save(number)
        (Path(bench.storage.url) / f"round-{number:06d}" / "state.safetensors").write_bytes(b"x")
    before = bench.storage.names()
    with pytest.raises(CheckpointError) as caught:
        bench.loaded_round()
    text = str(caught.value)
    assert "holds no whole checkpoint (round-000005: state.safetensors has 1 bytes" in text
    assert text.endswith(
        "; and 2 more); nothing was removed: put a copy of one back, or give "
        "another folder (checkpoints_dir)."
    )
    assert bench.storage.names() == before


def test_a_full_disk_is_one_sentence_and_keeps_the_checkpoint_before(bench: Bench) -> None:
    bench.save(1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(CheckpointError) as caught:
            bench.save(2, optimiser={"large": torch.zeros(1 << 20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    text = str(caught.value)
    assert "round-000002 was not saved" in text
    assert "larger than the limit allows" in text
    assert "\n" not in text
    assert bench.loaded_round() == 1
    assert sorted(os.listdir(bench.storage.url)) == ["round-000001"]


def test_a_storage_that_is_away_is_an_error_and_not_a_missing_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bench = Bench(LocalStorage(tmp_path / "file" / "job"))
    with pytest.raises(CheckpointError, match="was not saved"):
        bench.save(1)
    with pytest.raises(StorageError):
        bench.loaded_round()


@pytest.mark.parametrize("keep_last", [0, -1])
def test_keeping_none_is_refused(bench: Bench, keep_last: int) -> None:
    with pytest.raises(ValueError, match="keep_last must be at least 1"):
        Checkpoints(bench.storage, keep_last, print)


@pytest.mark.parametrize(
    "vector", [torch.zeros(21), torch.zeros(22, dtype=torch.float64), torch.zeros(2, 11)]
)
def test_a_vector_that_does_not_fit_is_refused(bench: Bench, vector: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="vector must"):
        bench.save(1, vector=vector)


def test_the_journal_goes_with_remote_checkpoints_only(any_url: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_text('{"event": "start"}\n')
    bench = Bench(open_storage(any_url))
    bench.save(1, journal=journal)
    if bench.storage.is_local:
        assert "journal.jsonl" not in bench.storage.names()
    else:
        assert bench.storage.read_bytes("journal.jsonl") == journal.read_bytes()


def test_the_digest_chains_everything_that_went_in() -> None:
    def chained(previous: str = "p", **changes: Any) -> str:
        vector = torch.tensor([1.0, -2.0])
        values = {"round": 1, "cohort": [0, 2], "computation_digest": "c", "vector": vector}
        return chain_digest(previous, **(values | changes))

    assert chained() == chained() == chained(cohort=[2, 0])
    changed = [
        chained(previous="q"),
        chained(round=2),
        chained(cohort=[0, 1]),
        chained(computation_digest="e"),
        chained(vector=torch.tensor([1.0, -2.0000002])),
        chained(vector=torch.tensor([])),
    ]
    for remembered in ({"m": torch.ones(2)}, {"n": torch.ones(2)}, {"m": torch.zeros(2)}):
        changed.append(chained(remembered=remembered))
    assert len({chained(), *changed}) == 10
    assert chained() == chained(remembered={})
    # Written into manifests: a change of this value would break the chains of existing runs.
    assert chained() == GOLDEN


# A server of processes: torch is loaded once, and each line of its input forks one that saves
# rounds, of which each value is the number of the round, until it is killed.
SAVER = """
import json, os, sys
import torch
from scaling_fl.core.vector import Layout
from scaling_fl.runtime.record.checkpoints import Checkpoints
from scaling_fl.runtime.storage import open_storage
torch.set_num_threads(1)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.write(1, b"%d\\n" % os.getpid())
        order = json.loads(line)
        os.environ.update(order["environment"])
        size, number = order["size"], order["round"]
        layout = Layout(("a", "b"), ((size - 1,), (1,)))
        checkpoints = Checkpoints(open_storage(order["url"]), 2, print)
        while True:
            value = torch.full((size,), float(number))
            checkpoints.save(
                round=number, vector=value, layout=layout, optimiser={"m": value},
                digest=str(number), previous_digest="", cohort=[], config={}, identity={},
            )
            os.write(1, b"saved\\n")
            number += 1
    os.waitpid(pid, 0)
    os.write(1, b"dead\\n")
"""


@pytest.fixture(scope="module")
def saver() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SAVER]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        yield process
        process.kill()


def save_until_killed(
    saver: subprocess.Popen[str], moments: random.Random, seconds: float, **order: Any
) -> None:
    """Let a process save until a random moment after its first checkpoint."""
    assert saver.stdin is not None
    assert saver.stdout is not None
    print(json.dumps(order), file=saver.stdin, flush=True)
    pid = int(saver.stdout.readline())
    assert saver.stdout.readline() == "saved\n"
    time.sleep(moments.random() * seconds)
    os.kill(pid, 9)
    while saver.stdout.readline() != "dead\n":
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "size", "kills", "seconds"),
    [
        ("tmp_path", 100_000, 20, 0.2),
        pytest.param("s3_url", 1_000_000, 2, 0.8, marks=pytest.mark.servers),
        pytest.param("gcs_url", 1_000_000, 2, 0.8, marks=pytest.mark.servers),
    ],
)
def test_a_kill_at_any_moment_leaves_whole_checkpoints_only(
    kind: str,
    size: int,
    kills: int,
    seconds: float,
    saver: subprocess.Popen[str],
    request: pytest.FixtureRequest,
) -> None:
    url = f"{request.getfixturevalue(kind)}/job"
    layout = Layout(("a", "b"), ((size - 1,), (1,)))
    storage = open_storage(url)
    environment = {name: value for name, value in os.environ.items() if "_" in name}
    moments = random.Random(seed_of_the_day())
    number = 0
    for _ in range(kills):
        order = {"url": url, "size": size, "round": number + 1, "environment": environment}
        save_until_killed(saver, moments, seconds, **order)
        assert 1 <= len(assert_every_manifest_is_true(storage)) <= 3
        found = Checkpoints(storage, 2, pytest.fail).load_latest(layout, {})
        assert found is not None
        assert found.round > number
        number = found.round
        assert torch.equal(found.vector, torch.full((size,), float(number)))
        assert torch.equal(found.optimiser["m"], found.vector)
    bench = Bench(storage, keep_last=1)
    bench.save(number + 1)
    assert {name.partition("/")[0] for name in storage.names()} == {f"round-{number + 1:06d}"}
    if storage.is_local:
        assert os.listdir(storage.url) == [f"round-{number + 1:06d}"]
