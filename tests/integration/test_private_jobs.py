"""What a job with noise publishes: nothing that is not covered by epsilon or keyed by its secret.

Two jobs on neighbouring data are compared, byte by byte, in all that they leave behind.
"""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from harness import settings
from one_process import QuickRun, outcome

from scaling_fl.composition import federation
from scaling_fl.composition.clients import deal_groups
from scaling_fl.composition.data import load_data
from scaling_fl.composition.secrecy import Secrecy
from scaling_fl.config import NOISE_SECRET, Config
from scaling_fl.config.older import in_todays_names
from scaling_fl.core.errors import UserError
from scaling_fl.core.seeding import from_key
from scaling_fl.federation import rounds
from scaling_fl.reporting.console import Console
from scaling_fl.runtime.record.journal import JournalTail
from scaling_fl.runtime.tracking.run_folder import RunFolder

JOBS: dict[str, dict[str, Any]] = {
    "poisson": {"clients_per_round": 2, "sampling": "poisson"},
    "tiers": {
        "clients_per_round": 2,
        "tiers": [{"upload": {"codec": "int8"}}, {"upload": {"codec": "nf4"}}],
    },
    "everyone": {"privacy": {"target_quantile": 0.5}, "server": {"optimiser": "adam"}},
    "groups": {
        "clients_per_round": 3,
        "sampling": "poisson",
        "privacy": {"unit": "group", "groups_per_client": 4, "groups_per_round": 2},
    },
}
PRIVACY = {"clip": 0.5, "noise_multiplier": 1.0, "delta": 1e-3}


def start(folder: Path, name: str, shared: Path, **changes: Any) -> QuickRun:
    base = JOBS.get(name, {})
    changed = {"num_clients": 6, "adapter": {"kind": "head"}, "weighting": "uniform"} | base
    privacy = PRIVACY | base.get("privacy", {})
    run = QuickRun(folder, shared=shared, **(changed | {"privacy": privacy} | changes))
    return run.start_here()


# What may differ, and why

TIMES = "times: how long a job and its rounds took, and when, is not covered by epsilon"
STATES = "the noisy states, which epsilon covers, and what is computed from them and the test data"
KEYED = "keyed hashes: nobody can tell whether they are of the same data without the secret"

SIZES = "how many clients took part, which the epsilon of their groups allows to be known"
MAY_DIFFER: list[tuple[str, str]] = [
    (r"journal\.jsonl:.*\.time|manifest\.json:time", TIMES),
    (r".*:(.*metrics\.)?time\..*|metrics\.json:.*\.timestamps\.\d+", TIMES),
    (r"(journal\.jsonl:.*metrics|metrics\.json:)\.?(validation\..*|privacy\.clip.*)", STATES),
    (r"(state|optimiser)\.safetensors:", STATES),
    (r"manifest\.json:files\.(state|optimiser)\.safetensors\.sha256", STATES),
    (r"manifest\.json:(digest|previous_digest)|journal\.jsonl:.*\.digest", STATES),
    (r"info\.json:(last_digest|checkpoints\..*\.digest)", STATES),
    (r"manifest\.json:identity\.owners\.data\.0", KEYED),
    (r"manifest\.json:identity\.privacy\.secret\.(salt|check)", KEYED),
    (r"manifest\.json:sha256", "of the manifest itself, whose time is another one"),
]
OF_GROUPS = [
    (r"(journal\.jsonl:.*metrics|metrics\.json:)\.?bytes\..*|.*progress\.total_bytes", SIZES)
]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def published(folder: Path) -> dict[str, Any]:
    """Take apart every file under a folder: JSON by its leaves, everything else by its bytes."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix in (".json", ".jsonl"):
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            value = [json.loads(line) for line in lines]
            value = value if path.suffix == ".jsonl" else value[0]
            found |= {f"{name}:{leaf}": value for leaf, value in leaves(value)}
        else:
            found[f"{name}:"] = path.read_bytes()
    return found


def assert_published_alike(one: Path, other: Path, allowed: list[tuple[str, str]]) -> set[str]:
    """Compare all that two jobs left; returns the reasons for which something differed."""
    left, right = published(one), published(other)
    assert left.keys() == right.keys()
    reasons = set()
    for key in left:
        if left[key] != right[key]:
            short = re.sub(r"^(.*/)", "", key.partition(":")[0]) + ":" + key.partition(":")[2]
            why = [reason for pattern, reason in allowed if re.fullmatch(pattern, short)]
            assert why, f"{key}: {left[key]!r} and {right[key]!r}"
            reasons.add(why[0])
    return reasons


def owned_by_one(config: Config, client: int = 0) -> list[int]:
    """Find the examples of a client, or of its first group where groups are protected."""
    data = load_data(config, 6, lambda text: None)
    owned = data.partitions[client]
    if config.privacy.unit == "group":
        owned = deal_groups(config, owned, client)[0]
    return [int(index) for index in owned]


def with_other_texts(shared: Path, folder: Path, indices: list[int]) -> Path:
    """Copy the training data with other texts at some indices."""
    settings(shared)  # writes them, if no test has yet
    with (shared / "train.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    for index in indices:
        rows[1 + index][1] = "nothing of the kind"
    path = folder / "train.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def record(run: QuickRun, folder: Path) -> None:
    """Write the run's folder from its journal, as the parent process does, and the console's lines.

    Numbers in lines are those of the metrics, which are compared by themselves.
    """
    tracked = RunFolder(folder, uid="u", job_name="j")
    tracked.dir = str(folder)
    tracked.run_entry = {"artifacts": []}
    folder.mkdir()
    tracked.refresh(run.record)
    said = StringIO()
    console = Console(said, num_rounds=3)
    for event in JournalTail(run.journal).read_new():
        console.show(event)
    console.close()
    (folder / "cout.txt").write_text(re.sub(r"\d+\.\d+( kB)?|\d+ bytes", "#", said.getvalue()))


@pytest.mark.parametrize("name", JOBS)
def test_neighbouring_data_differ_in_nothing_that_is_published(
    name: str, corpus: Path, tmp_path: Path
) -> None:
    here, before = tmp_path / "here", tmp_path / "before"  # no path may tell the two apart
    train_path = str(with_other_texts(corpus, tmp_path, []))
    run = start(here, name, corpus, train_path=train_path)
    record(run, here / "record")
    shutil.move(here, before)
    with_other_texts(corpus, tmp_path, owned_by_one(run.config))
    record(start(here, name, corpus, train_path=train_path), here / "record")
    allowed = MAY_DIFFER + (OF_GROUPS if name == "groups" else [])
    assert {STATES, KEYED} <= assert_published_alike(before, here, allowed)
    said = (here / "checkpoints" / "journal.jsonl").read_text()
    assert '"clients": [], "failures": []' in said
    for word in ("train.", "update.", "histograms", 'loss": [', '"client"'):
        assert word not in said
    manifest = json.loads((here / "checkpoints" / "round-000003" / "manifest.json").read_text())
    assert manifest["cohort"] == []
    # Bytes are told unless they tell who or how many were drawn.
    assert ("bytes.total" in said) == (name in ("everyone", "groups"))
    assert (manifest["progress"]["total_bytes"] > 0) == (name in ("everyone", "groups"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The cohorts of the rounds, as they are dealt to the workers."""
    seen: list[list[int]] = []
    real = rounds.deal

    def watched(cohort: list[int], *rest: Any) -> dict[int, int]:
        seen.append(cohort)
        return real(cohort, *rest)

    monkeypatch.setattr(rounds, "deal", watched)
    return seen


@pytest.mark.parametrize("name", ["poisson", "tiers", "groups"])
def test_with_the_same_noise_and_draws_a_client_that_is_not_drawn_changes_no_byte(
    name: str,
    drawn: list[list[int]],
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The states are then the same, so nothing is left but times and keyed hashes."""
    fixed = Secrecy(from_key(b"noise"), from_key(b"draws"))
    monkeypatch.setattr(federation, "make_secrecy", lambda *args: fixed)
    here, before = tmp_path / "here", tmp_path / "before"
    train_path = str(with_other_texts(corpus, tmp_path, []))
    run = start(here, name, corpus, train_path=train_path)
    record(run, here / "record")
    shutil.move(here, before)
    away = min(set(range(6)) - {client for cohort in drawn for client in cohort})
    with_other_texts(corpus, tmp_path, owned_by_one(run.config, away))
    record(start(here, name, corpus, train_path=train_path), here / "record")
    allowed = [(pattern, reason) for pattern, reason in MAY_DIFFER if reason != STATES]
    assert KEYED in assert_published_alike(before, here, allowed)


def test_clients_that_fail_are_not_told(corpus: Path, tmp_path: Path) -> None:
    """Whose data made the training diverge is as secret as the data."""
    run = start(tmp_path / "run", "everyone", corpus, learning_rate=1e30, optimiser="sgd")
    assert run.record.failures == []
    assert run.record.last_round == 3


def test_jobs_with_one_secret_and_seed_draw_by_themselves(
    drawn: list[list[int]], corpus: Path, tmp_path: Path
) -> None:
    def cohorts(folder: str, **changes: Any) -> list[list[int]]:
        drawn.clear()
        changes = {"clients_per_round": 2, "num_rounds": 4, **changes}
        start(tmp_path / folder, "", corpus, **changes)
        return drawn.copy()

    slow = cohorts("slow", learning_rate=1e-3)
    assert cohorts("again", learning_rate=1e-3) == slow
    fast = cohorts("fast", learning_rate=1e-2)
    start_of_slow = str(tmp_path / "slow" / "checkpoints")
    further = cohorts("further", learning_rate=1e-3, init_from=start_of_slow)
    # From round 3 on it has the settings of ``fast``, but another state.
    changed = cohorts("changed", learning_rate=1e-3, num_rounds=2)
    changed += cohorts("changed", learning_rate=1e-2)
    assert changed[:2] == slow[:2]
    later = [cohorts[2:] for cohorts in (slow, fast, further, changed)]
    assert all(one != other for one, other in combinations(later, 2))


def test_a_resume_goes_on_with_the_same_data_and_secret_and_with_no_other(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = start(tmp_path / "whole", "poisson", corpus)
    stopped = start(tmp_path / "stopped", "poisson", corpus, num_rounds=2)
    other = with_other_texts(corpus, tmp_path, [0])
    with pytest.raises(UserError, match=r"owners\.data\[0\] was .* is now"):
        start(tmp_path / "stopped", "poisson", corpus, train_path=str(other))
    monkeypatch.setenv(NOISE_SECRET, "another secret, of 32 characters")
    with pytest.raises(UserError, match=f"{NOISE_SECRET} must be the secret that the job was"):
        start(tmp_path / "stopped", "poisson", corpus)
    monkeypatch.undo()
    monkeypatch.setenv(NOISE_SECRET, "k" * 32)
    resumed = start(tmp_path / "stopped", "poisson", corpus)
    assert outcome(resumed) == outcome(whole)
    assert stopped.record.last_round == 3


EARLIER = Path(__file__).parents[1] / "fixtures" / "jobs_of_d80c8c4" / "checkpoints" / "private"


def test_a_job_of_before_the_seal_goes_on_with_its_draws_and_its_noise(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It drew 3 and 4, then 0 and 3; and its noise was chosen by a looser bound."""
    folder = tmp_path / "run"
    shutil.copytree(EARLIER, folder / "checkpoints")
    stored = json.loads((EARLIER / "round-000002" / "config.json").read_text())
    data = Path(__file__).parents[1] / "fixtures" / "jobs_of_e368924"
    paths = {f"{name}_path": str(data / f"{name}.csv") for name in ("train", "test")}
    changes = in_todays_names(stored) | paths | {"data": {"cache_dir": str(tmp_path / "cache")}}
    run = QuickRun(folder, shared=corpus, **(changes | {"num_rounds": 3}))
    before = run.manifest(2)
    made: list[rounds.Rounds] = []
    make_rounds = federation.make_rounds

    def watched(*args: Any) -> rounds.Rounds:
        made.append(make_rounds(*args))
        return made[-1]

    monkeypatch.setattr(federation, "make_rounds", watched)
    run.start_here()
    assert [made[0].cohort(number, "any") for number in (1, 2)] == [[3, 4], [0, 3]]
    assert run.manifest(3)["identity"] == before["identity"]
    assert run.manifest(3)["progress"]["computation"] == before["progress"]["computation"]
