"""Every benchmark can still be put together; what it measures is not asserted."""

import csv
import importlib
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from scaling_fl.config import read_config
from scaling_fl.config.merges import MERGES

FOLDER = Path(__file__).parents[2] / "benchmarks"
Settings = dict[str, Any]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


@pytest.fixture
def tiny(tmp_path: Path) -> Settings:
    """Return what turns the settings of a benchmark into those of a tiny model on 128 texts."""
    path = tmp_path / "texts.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([1 + n % 5, f"text {n}"] for n in range(128))
    texts = {"task_name": "yelp", "train_path": str(path), "test_path": str(path)}
    small = {"model": "tiny", "max_seq_len": 16, "batch_size": 2}
    return texts | small | {"data": {"cache_dir": str(tmp_path), "max_test_examples": 4}}


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_it_finds_all_that_it_imports(file: Path) -> None:
    assert importlib.import_module(file.stem).__doc__


def test_a_bare_loop_has_the_losses_of_the_federated_round(tiny: Settings) -> None:
    from federated import Federated
    from round_overhead import SETTINGS, Bare, compare

    federated, bare = Federated(SETTINGS | tiny), Bare(SETTINGS | tiny)
    for _ in range(2):  # every call does the same work
        compare(federated, bare)
    assert len(bare.losses) == 64


@pytest.mark.parametrize("num_clients", [2, 64])
def test_more_clients_share_the_same_steps(tiny: Settings, num_clients: int) -> None:
    from federated import Federated
    from scaling import clients

    steps: list[None] = []
    report = Federated(clients(num_clients) | tiny).round(check=lambda: steps.append(None))
    assert (len(report.clients), len(steps)) == (num_clients, 64)


def test_a_worker_runs_rounds_of_the_original_ways_federation_on_demand(
    tiny: Settings, tmp_path: Path
) -> None:
    from federated import serve
    from original import Original, train_original
    from original_way import check_same_work, federation

    settings = federation("long", 1, "sgd") | tiny | {"batch_size": 16}
    theirs = [train_original(*task) for task in Original(settings, 1).tasks()]
    ours, workers = multiprocessing.Pipe()
    for order in ("ours", None):
        ours.send(order)
    serve({"ours": settings}, 0, 1, str(tmp_path / "store"), workers)
    assert ours.recv() == "ready"
    report, _ = ours.recv()
    check_same_work(theirs, report, 2)


def test_the_codecs_share_is_a_part_of_the_round(tiny: Settings) -> None:
    from codec_share import WAYS, play_round
    from federated import Federated

    for settings in WAYS.values():
        federated = Federated(settings | tiny | {"batch_size": 32})
        for _ in range(2):
            beside, whole = play_round(federated)
            assert 0 < beside < whole
        assert federated.state.round == 2


def test_merges_take_turns_with_the_mean(capsys: pytest.CaptureFixture[str]) -> None:
    from merges import MERGES, compare_with_dense, compare_with_mean

    compare_with_mean(2000, 1)
    compare_with_dense(64, 1)
    assert capsys.readouterr().out.count("ratio: ") == 2 * len(MERGES) + 1


def test_flexlora_comes_to_what_a_dense_svd_does() -> None:
    from merges import merge_adapters

    ours, theirs = multiprocessing.Pipe()
    merge_adapters(theirs, 1, 80, torch.get_num_threads())
    _, _, most, error = ours.recv()
    assert most > 0
    assert error < 1e-5


@pytest.mark.slow
def test_the_memory_of_a_merge_is_measured_beside_another_worker() -> None:
    from merges import peak_beside

    assert peak_beside("ties", 2000, 2) > 0


def test_the_settings_of_runs_by_the_command_are_accepted() -> None:
    import newsgroups_report
    import original_way
    import planned_time
    import scaling
    import startup
    import sums

    runs = [newsgroups_report.COMMON | s for s in newsgroups_report.SETTINGS.values()]
    runs += [*planned_time.federations().values()]
    runs += [*scaling.compared().values(), *scaling.models().values()]
    runs += [sums.SETTINGS, startup.settings("minilm"), original_way.federation("long", 8, "sgd")]
    assert all(read_config(settings).num_rounds >= 1 for settings in runs)


def test_merges_are_compared_with_the_mean_by_seed(
    tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import merges_on_newsgroups as table

    kept = ("mean", "alternate", "FedAdam", "mean, clients by SGD", "SCAFFOLD, by SGD")
    methods = {name: table.METHODS[name] for name in kept}
    monkeypatch.setattr(table, "METHODS", methods)
    monkeypatch.setattr(table, "GRID", (3.0,))
    monkeypatch.setattr(table, "PARTITIONS", {"IID": {}})
    common = table.COMMON | table.QUICK | tiny | {"num_local_steps": 1, "num_clients": 6}
    results = table.Results(tmp_path, (1, 2), common)
    empty = list(table.table(results, "IID"))
    assert empty[4] == "| mean | - | - | - | - | - | - | - | - |"
    results.complete(1)
    tried = sum(results.best_factor(name, "IID") == 3.0 for name in kept)
    assert len(list(tmp_path.glob("*/journal.jsonl"))) == len(kept) * (2 + 1) + tried
    (mean, alternate, *_) = [line.split(" | ") for line in table.table(results, "IID")][4:]
    assert mean[3:5] == ["+0.0 ± 0.0", "+0.0 ± 0.0"]
    assert alternate[5] == "6 to 4", "fewer bytes, at the rounds that were evaluated"
    assert "-" not in alternate


def test_no_merge_is_compared_with_the_mean_as_what_is_the_mean() -> None:
    import merges_on_newsgroups as table

    found = {
        name: table.config_of(table.METHODS[name], {}, 1, 1.0)
        for name, row in MERGES.items()
        if not row.personal
    }
    assert [name for name, config in found.items() if config is None] == ["mean_of_senders"]
    options = {name: config.merge.options for name, config in found.items() if config}
    assert options["task_arithmetic"]["scale"] != 1.0
    assert options["trimmed_mean"]["trim"] * 5 >= 1


def test_an_interval_is_students() -> None:
    from merges_on_newsgroups import interval

    assert interval([1.0, 2.0, 3.0]) == "+2.0 ± 2.5"  # 4.303 * 1 / sqrt(3) = 2.48
    assert interval([1.9, 2.0, 2.1]) == "**+2.0 ± 0.2**"


@pytest.mark.slow
def test_a_checkout_is_compared_by_its_own_command(
    tiny: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    from checkouts import THIS, compare
    from setting import LONG

    compare("tiny", LONG | tiny | {"num_clients": 4, "num_local_steps": 1}, THIS, 1)
    assert capsys.readouterr().out.count("ratio: ") == 3


def test_a_planned_time_is_compared_with_that_of_the_run(
    tiny: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from planned_time import compare, federations

    monkeypatch.setattr("time.perf_counter", time.perf_counter)  # it is back after the test
    few = tiny | {"num_clients": 2, "data": tiny["data"] | {"max_train_examples": 8}}
    compare("ties", federations()["the same, ties"] | few, 1)
    assert capsys.readouterr().out.count("ratio: ") == 2


@pytest.mark.nightly  # Flower starts twice
def test_flowers_own_the_engine_and_the_front_do_the_same_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("ray")
    from against_flower import TINY, compare
    from setting import one_epoch

    compare("4 tiny", one_epoch(4, 8, TINY), 3)
    assert "digests are equal" in capsys.readouterr().out
