"""The commands on what a run has saved of a language model: questions to it, and its answers."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from one_process import QuickRun

from scaling_fl.commands import evaluate, generate
from scaling_fl.commands.evaluation_request import EvaluationRequest
from scaling_fl.learning.questions.files import read_questions
from tests.integration.conversations import conversation_settings, write_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> QuickRun:
    """A run that has trained an adapter of the tiny language model so that it answers otherwise."""
    folder = tmp_path_factory.mktemp("language")
    changes = conversation_settings(folder) | {
        "num_rounds": 3,
        "learning_rate": 0.05,
        "adapter": {"kind": "lora", "targets": "all-linear"},
    }
    return QuickRun(folder / "job", shared=folder, **changes).start_here()


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def asked(run: QuickRun, **options: Any) -> dict[str, Any]:
    return {"checkpoint": str(run.checkpoints), **options}


def ask(
    capfd: pytest.CaptureFixture[str], run: QuickRun, *, expect: int = 0, **options: Any
) -> Any:
    """Run scripts/evaluate.py in this process; returns its JSON, or its error."""
    request = vars(EvaluationRequest(**asked(run, json=True, **options)))
    assert evaluate.main(request) == expect
    out, err = capfd.readouterr()
    return json.loads(out) if expect == 0 else err


@pytest.mark.parametrize("rule", ["likelihood", "generation"])
def test_the_command_repeats_what_the_run_reported(
    run: QuickRun, capfd: pytest.CaptureFixture[str], rule: str
) -> None:
    evaluation = run.config.evaluation
    found = ask(
        capfd,
        run,
        questions=list(evaluation.questions or ()),
        rule=rule,
        max_questions=evaluation.max_questions,
        batch_size=3,
    )
    assert found["num_questions"] == {"sums": 9, "words": 7}
    assert found["digest"] == run.digest
    reported = {
        name: run.results()[name][1][-1]
        for name in ("validation.sums.accuracy", "validation.words.accuracy")
    }
    assert found["metrics"].keys() == reported.keys()
    assert rule == "generation" or found["metrics"] == reported


def test_all_questions_are_asked_by_subject(
    run: QuickRun, capfd: pytest.CaptureFixture[str]
) -> None:
    path = run.config.evaluation.files["sums"]
    found = ask(capfd, run, questions=[path], per_class=True)
    metrics = found["metrics"]
    assert found["num_questions"] == {"sums": 11}
    assert [*metrics] == [f"validation.sums.accuracy{end}" for end in ("", ".even", ".odd")]
    even, odd = (metrics[f"validation.sums.accuracy.{name}"] for name in ("even", "odd"))
    assert metrics["validation.sums.accuracy"] == pytest.approx((5 * even + 6 * odd) / 11)
    assert evaluate.main(vars(EvaluationRequest(**asked(run, questions=[path])))) == 0
    where, what, metric = capfd.readouterr().out.splitlines()
    assert where.endswith("round-000003")
    assert what == "tiny on 11 questions of sums"
    assert metric.split() == ["validation.sums.accuracy", repr(metrics["validation.sums.accuracy"])]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"questions": ["nowhere.jsonl"]}, "evaluation.questions must name existing files"),
        (
            {"questions": [__file__], "layout": "cloze", "rule": "generation"},
            "evaluation.rule must be likelihood for choices without letters",
        ),
        ({"questions": [__file__], "tiers": True}, "--tiers is about test data"),
        ({"questions": [__file__], "test_path": "x"}, "--test-path is about test data"),
        ({"harness": "x", "layout": "mmlu"}, "--layout needs --questions"),
        ({"harness": "x", "harness_folder": "nowhere"}, "--harness-folder must be a folder"),
        ({"questions": [__file__], "harness_folder": "x"}, "--harness-folder needs --harness"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    run: QuickRun, capfd: pytest.CaptureFixture[str], options: dict[str, Any], sentence: str
) -> None:
    assert sentence in ask(capfd, run, expect=2, **options)


def test_questions_need_a_language_model(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = QuickRun(tmp_path / "job", shared=corpus, num_rounds=1).start_here()
    error = ask(capfd, other, expect=2, harness="x")
    assert "CHECKPOINT must be of a task that trains a language model" in error


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_harness_asks_the_same_model(
    run: QuickRun, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A task of one's own as YAML; its prompts are ours, and so its accuracy must be."""
    path = run.config.evaluation.files["sums"]
    shown = [{"prompt": q.prompt, "gold": q.answer} for q in read_questions(path, "plain")]
    data = write_rows(tmp_path / "data.jsonl", shown)
    (tmp_path / "sums.yaml").write_text(
        "task: own_sums\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        "test_split: test\n"
        "output_type: multiple_choice\n"
        'doc_to_text: "{{prompt}}"\n'
        'doc_to_choice: ["A", "B", "C", "D"]\n'
        "doc_to_target: gold\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    options = {"harness": "own_sums", "harness_folder": str(tmp_path)}
    assert evaluate.main(vars(EvaluationRequest(**asked(run, **options)))) == 0
    out, err = capfd.readouterr()
    _, metric = out.splitlines()
    own = ask(capfd, run, questions=[path])["metrics"]
    name, accuracy = metric.split()
    assert name == "harness.own_sums.acc"
    assert float(accuracy) == own["validation.sums.accuracy"]
    assert [line.split()[0] for line in err.splitlines()] == ["loading", "loading", "asking"]
    error = ask(capfd, run, expect=2, harness="nothing", harness_folder=str(tmp_path))
    assert f"--harness must name tasks of {tmp_path}, got nothing" in error


def test_a_harness_that_is_not_installed_is_named(
    run: QuickRun, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)

    class Missing:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "lm_eval":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    error = ask(capfd, run, expect=1, harness="arc_easy")
    assert "--harness needs the extra harness" in error
    assert "pip install -c constraints.txt -e '.[harness]'" in error


def test_answers_before_and_after_the_training(
    run: QuickRun, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("What is 1 + 1?\n\nWhat is 2 + 3?\n")
    request = asked(run, prompt=["Say x."], prompts=str(path), max_tokens=9, json=True)
    assert generate.main(request) == 0
    found = json.loads(capfd.readouterr().out)
    rows = found["answers"]
    assert [row["prompt"] for row in rows] == ["Say x.", "What is 1 + 1?", "What is 2 + 3?"]
    assert found["digest"] == run.digest
    assert any(row["before"] != row["after"] for row in rows)
    assert generate.main({**request, "json": False, "prompts": None}) == 0
    shown = capfd.readouterr().out.split("\n")
    assert shown[0] == "prompt: Say x."
    assert shown[1].startswith("before: ")


def test_the_answer_before_is_that_of_the_base_model(
    run: QuickRun, capfd: pytest.CaptureFixture[str]
) -> None:
    request = generate.AnswersRequest(**asked(run, prompt=["What is 1 + 1?"], max_tokens=9))
    saved, config, (answered,) = generate.answers(request)
    task = generate.language_task(saved, config)
    ids = torch.tensor([task.ask("What is 1 + 1?")])
    model: Any = task.load_model()
    expected = model.eval().generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=9
    )
    text = task.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
    assert answered.before == text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prompt": []}, "a prompt must be given by --prompt TEXT"),
        ({"prompt": [" "]}, "a prompt must be given by --prompt TEXT"),
        ({"prompt": [], "prompts": "nowhere.txt"}, "--prompts must name a text file"),
    ],
)
def test_prompts_that_are_not_there_are_refused(
    run: QuickRun, capfd: pytest.CaptureFixture[str], options: dict[str, Any], sentence: str
) -> None:
    assert generate.main(asked(run, **options)) == 2
    assert f"Error: {sentence}" in capfd.readouterr().err
