"""The clients of one run at a time: their labels, how often they were drawn, what they reached."""

from collections.abc import Sequence
from typing import Any

from scaling_fl.reporting.report.charts import MAX_CLIENTS, client_charts, client_columns
from scaling_fl.reporting.report.clients import summarise
from scaling_fl.reporting.report.data import ReportRun
from scaling_fl.reporting.report.figures import figure
from scaling_fl.reporting.report.html import Markup, element, join, json_script

TITLES = {
    "num_examples": "examples",
    "rounds": "rounds counted",
    "failed": "rounds left out",
    "update_norm": "mean norm of updates",
    "bytes": "bytes, both ways",
    "seconds": "seconds of training",
    "last.accuracy": "accuracy, last round",
    "last.loss": "loss, last round",
}
MAX_ROWS = 20_000
"""Clients of all runs together that the page holds; the tables have all."""


def client_section(runs: Sequence[ReportRun]) -> Markup | None:
    """Show the clients of a run that is chosen; None where no record says anything of clients."""
    found, histograms = _collect(runs)
    if not found:
        return None
    specs = client_charts(runs)
    figures = [
        figure(f"clients-{name}", str(spec["encoding"]["x"]["title"]), spec, of_clients=name)
        for name, spec in specs.items()
    ]
    lacking = len(runs) - len(found)
    note = f" {lacking} runs are not in this page: see tables/clients.csv." if lacking else ""
    options = [element("option", each["run"], value=n) for n, each in enumerate(found)]
    choice = element("label", "Run ", element("select", *options, id="client-run"))
    return join(
        [
            element("p", choice, note) if len(runs) > 1 else None,
            element(
                "p",
                "What a client trained on, how often it was drawn, and what its training reached "
                "in the last round that it was in: its own examples, and no test. How far updates "
                f"are from each other is the metric update.drift. The charts show {MAX_CLIENTS} "
                "clients at most; the table has all.",
            ),
            element("div", *figures, class_="grid"),
            element("div", id="client-table", class_="numbers", data_title="Clients"),
            json_script(
                {"runs": found, "histograms": histograms, "most": MAX_CLIENTS, "titles": TITLES},
                id="client-data",
            ),
        ]
    )


def _collect(runs: Sequence[ReportRun]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Collect the columns of each run, and the partitions, of which many runs may share one."""
    found: list[dict[str, Any]] = []
    partitions: dict[str, int] = {}
    histograms: list[Any] = []
    left = MAX_ROWS
    for run in runs:
        clients = summarise(run)
        if not clients or len(clients) > left:
            continue
        left -= len(clients)
        partition = run.partition or {}
        counts = partition.get("histograms")
        if counts and repr(counts) not in partitions:
            partitions[repr(counts)] = len(histograms)
            histograms.append({"counts": counts, "labels": partition.get("label_names", [])})
        place = partitions.get(repr(counts))
        found.append({"run": run.row.run, "columns": client_columns(clients), "histograms": place})
    return found, histograms
