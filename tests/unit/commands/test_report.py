"""The report of runs: which runs, compared with what, and files with all of their numbers."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet
import pytest

from scaling_fl.commands.report import ReportOptions, main
from tests.made_up_runs import of, write


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SACRED_MONGO_URI", raising=False)


def ties(seed: int, **changes: Any) -> Any:
    return of(seed, merge={"method": "ties"}, **changes)


def report(out: str = "report", **options: Any) -> str:
    given = {"places": ["runs"], "out": Path(out)} | options
    assert main(ReportOptions(**given)) == 0
    return Path(out, "index.html").read_text()


def rows(name: str, out: str = "report") -> list[dict[str, str]]:
    text = Path(out, "tables", f"{name}.csv").read_text()
    return list(csv.DictReader(io.StringIO(text)))


def test_a_report_is_a_page_and_tables_that_hold_all_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write([of(1), ties(1), of(2, failing=1, rounds=30), ties(2)], tmp_path)
    page = report()
    assert "Comparison of 4 runs" in page
    assert capsys.readouterr().out == (
        "wrote report/index.html, and all numbers to report/tables\n"
    )
    for name in ("runs", "rounds", "clients", "failures", "comparisons"):
        assert f'href="tables/{name}.csv"' in page
        written = pyarrow.csv.read_csv(Path("report/tables") / f"{name}.csv")
        kept = pyarrow.parquet.read_table(Path("report/tables") / f"{name}.parquet")
        assert written.column_names == kept.column_names
        assert written.num_rows == kept.num_rows
    assert len(rows("rounds")) == 3 * 4 + 30
    assert len(rows("clients")) == 10 * len(rows("rounds"))
    assert {row["verdict"].split(":")[0] for row in rows("comparisons")} >= {"the reference"}


def test_the_runs_of_a_query_or_a_sweep_alone_are_reported(tmp_path: Path) -> None:
    write([of(1), ties(1), of(1, learning_rate=0.5)], tmp_path)
    report(query=["merge.method=ties"])
    assert [row["run"] for row in rows("runs")] == ["runs/2"]
    report(query=["learning_rate>0.1", "status=completed"])
    assert [row["run"] for row in rows("runs")] == ["runs/3"]
    config = Path("runs/1/info.json")
    config.write_text(config.read_text().replace("made-up-1", "rates-0123456789ab"))
    journal = Path("checkpoints/made-up-1/journal.jsonl")
    journal.write_text(journal.read_text().replace('"made-up-1"', '"rates-0123456789ab"'))
    report(sweep="rates")
    assert [row["job"] for row in rows("runs")] == ["rates-0123456789ab"]


def test_the_reference_is_the_one_that_is_named(tmp_path: Path) -> None:
    write([of(1), ties(1), of(2), ties(2)], tmp_path)
    for method in ("mean", "ties"):
        report(reference=[f"merge.method={method}"])
        assert {row["reference"] for row in rows("comparisons")} == {f"merge.method={method}"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"query": ["status=dead"]}, "must have a run, got none of the 2 in runs"),
        ({"query": ["merge.methd=ties"]}, "use merge.method"),
        ({"metric": "validation.accuracyy"}, "no run has a column, metric or setting"),
        ({"reference": ["seed=1"]}, "--reference must name one group of runs, got 2"),
        ({"reference": ["seed"]}, "--reference must be name=value"),
    ],
)
def test_misuse_says_what_may_be_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], sentence: str
) -> None:
    write([of(1), ties(1)], tmp_path)
    assert main(ReportOptions(places=["runs"], out=Path("report"), **options)) == 2
    assert sentence in capsys.readouterr().err
    assert not Path("report").exists()


def test_a_report_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write([of(1)], tmp_path)
    Path("report").write_text("a file")
    assert main(ReportOptions(places=["runs"], out=Path("report"))) == 1
    assert "write the report to report" in capsys.readouterr().err


def test_results_alone_make_the_same_files_wherever_and_whenever_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sweeps of the same runs, which started in another order, on other sites."""
    made = [of(1), ties(1), of(2), ties(2, failing=3, rounds=30)]
    pages = []
    for name, order, sites in (("one", (0, 1, 2, 3), [0]), ("other", (2, 0, 3, 1), [1])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        write([made[n] for n in order], Path(), jobs=[f"sweep-{n}" for n in order], sites=sites)
        report(is_results_only=True)
        pages.append({path.name: path.read_bytes() for path in sorted(Path("report").rglob("*.*"))})
    assert pages[0].keys() == pages[1].keys()
    assert {name for name in pages[0] if pages[0][name] != pages[1][name]} == set()
    told = pages[0]["index.html"].partition(b"<script>")[0]
    assert not re.search(rb"runs/\d|20\d\d-\d\d-\d\d|time\.|made-up, cpu", told)


def test_runs_that_have_done_little_are_reported_too(tmp_path: Path) -> None:
    """One has finished no round, and of one there is no folder and so no settings."""
    write([of(1, finished=0, status=None), of(2), of(3, eval_every=3, finished=2)], tmp_path)
    for path in Path("runs/2").iterdir():
        path.unlink()
    page = report(places=["runs", "checkpoints/made-up-2"])
    assert "DEAD, 0 of 4 rounds" in page
    assert "no metric on 20newsgroups_topics" in page, "it was never evaluated"
    assert [row["task"] for row in rows("runs")].count("") == 1


def test_passwords_in_settings_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "hunter2hunter2")
    text = "see https://ann:pa55word@host/x and hunter2hunter2"
    write([of(1, notes=(text,), message=text, status="FAILED")], tmp_path)
    page = report()
    assert "see https://***@host/x and ***" in page
    assert "pa55word" not in page
    assert "hunter2" not in page
