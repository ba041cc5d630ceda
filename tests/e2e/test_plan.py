"""The command that plans: its bytes are those that the run then sends, tier by tier."""

import csv
import json
import sys
from pathlib import Path

import pytest

from tests.e2e.commands import ROOT, Shell, arguments, federation

pytestmark = [pytest.mark.e2e]

PLAN, EVALUATE = (str(ROOT / "scripts" / name) for name in ("plan.py", "evaluate.py"))
TIERS = (
    "tiers=[{'rank': 1}, {'rank': 2, 'upload': {'codec': 'nf4'}}, {'download': {'density': 0.5}}]"
)


@pytest.mark.slow
def test_what_was_planned_is_what_a_run_with_tiers_costs(corpus: Path, shell: Shell) -> None:
    changes: dict[str, object] = {"adapter.kind": "lora", "adapter.rank": 4, "num_clients": 6}
    changes |= {"clients_per_round": 3, "num_rounds": 3, "val_batch_size": 16}
    changes |= {"job_name": "tiers", "checkpoints_dir": "checkpoints"}
    given = [*arguments(federation(corpus, **changes)), TIERS]
    planned = shell.type(sys.executable, PLAN, "--json", *given).end(expect=0)
    prediction = json.loads(planned.out)
    closing = shell.train(*given).end(expect=0).out
    run = shell.folder / "runs" / "1"
    log = list(csv.DictReader((run / "comm_log.csv").read_text().splitlines()))
    assert sum(int(row["amount_of_bytes"]) for row in log) == prediction["total_bytes"]
    down = [sum(int(r["amount_of_bytes"]) for r in log if r["sender"] == "-1" and
            r["federated_round"] == str(number)) for number in (1, 2, 3)]  # fmt: skip
    assert down == prediction["download_bytes"]
    assert f"({prediction['total_bytes']:,} bytes), " in closing
    assert "as plain fp32" in closing

    metrics = json.loads((run / "metrics.json").read_text())
    found = shell.type(sys.executable, EVALUATE, "checkpoints", "--tiers", "--json").end(expect=0)
    evaluated = json.loads(found.out)["metrics"]
    for tier in range(3):
        name = f"validation.accuracy.tier{tier}"
        assert evaluated[name] == metrics[name]["values"][-1]
    assert evaluated["validation.loss"] == metrics["validation.loss"]["values"][-1]


def test_a_plan_refuses_what_a_run_would_refuse(shell: Shell) -> None:
    wrong = ("num_rounds=0", "task_name=20newsgroups", "upload.codek=nf4")
    command = shell.type(sys.executable, PLAN, "with", *wrong).end(expect=2)
    assert command.err.splitlines()[0] == "Error: 2 problems in the configuration:"
    assert (
        "upload.codek must be a known setting, got nf4; use upload.codec."
        in command.err.replace("'nf4'", "nf4")
    )
    assert command.out == ""


@pytest.mark.slow
def test_a_config_alone_is_planned_and_neither_trained_nor_timed(shell: Shell) -> None:
    shape = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336}
    (shell.folder / "config.json").write_text(json.dumps({"model_type": "mistral", **shape}))
    given = ("task_name=generalnlp", "model=config.json", "adapter.kind=lora", "num_clients=3")
    planned = shell.type(sys.executable, PLAN, "--json", "with", *given).end(expect=0)
    assert json.loads(planned.out)["total_parameters"] > 7_000_000_000
    refusal = "model must have weights, which only scripts/plan.py does without, got 'config.json'"
    for command in (
        shell.type(sys.executable, PLAN, "--time", "with", *given),
        shell.train("with", *given),
    ):
        assert refusal in " ".join(command.end(expect=2).err.split())
    assert not (shell.folder / "runs").exists()


@pytest.mark.slow
def test_the_time_is_the_sum_of_what_was_measured_and_leaves_no_trace(
    corpus: Path, shell: Shell
) -> None:
    given = arguments(federation(corpus, num_rounds=10, eval_every=4, save_every=5))
    temporary = shell.folder / ".temporary"
    temporary.mkdir()
    planned = shell.type(
        sys.executable, PLAN, "--time", "--json", *given, TMPDIR=str(temporary)
    ).end(expect=0)
    time = json.loads(planned.out)["time"]
    assert min(time.values()) >= 0
    assert time["start_seconds"] > 1  # which torch alone takes
    # A worker has two clients in a round, with 4 epochs of 3 steps; rounds 4, 8 and 10 are
    # evaluated, and rounds 5 and 10 saved.
    clients = 2 * (time["client_seconds"] + 12 * time["step_seconds"])
    beside = 3 * time["evaluation_seconds"] + 2 * time["save_seconds"]
    rounds = 10 * (clients + time["merge_seconds"]) + beside
    assert time["rounds_seconds"] == pytest.approx(rounds)
    assert not [*shell.folder.glob("[!.]*"), *temporary.glob("scaling_fl*")]
