"""Models of every family are trained, resumed, exported and loaded elsewhere with the same answers.

Elsewhere is plain transformers, or PEFT, with the tokenizer of the folder and its padding.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import WORDS
from one_process import QuickRun, outcome
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from scaling_fl.commands import export
from scaling_fl.composition.restored import restore, settings_of
from scaling_fl.composition.tasks import make_task
from scaling_fl.runtime.tracking.places import open_saved
from tests.tiny_models import FAMILIES, MORE_FAMILIES, save_model

# peft 0.21.2 asks transformers 5.23 by a name that goes away in its version 6.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

LABELS = sorted(WORDS)


def families(*always: str, but: tuple[str, ...] = ()) -> list[Any]:
    """All families; those named first are in every run of the tests."""
    return [
        pytest.param(family, marks=() if family in always else pytest.mark.slow)
        for family in (*FAMILIES, *MORE_FAMILIES)
        if family not in but
    ]


class Trained:
    """Two rounds of a federation on two sites, exported."""

    def __init__(self, family: str, corpus: Path, folder: Path, kind: str) -> None:
        self.corpus, self.folder = corpus, folder
        self.base = "tiny" if family == "tiny" else save_model(family, folder / "base")
        self.changes = {
            "model": str(self.base),
            "max_seq_len": 16,
            "num_rounds": 2,
            "site_ids": [0, 1],
            "adapter": {"kind": kind, "dropout": 0.1} if kind != "none" else {},
        }
        self.run = QuickRun(folder / "run", shared=corpus, **self.changes).start_here()

    def check_resume(self) -> None:
        """Stop after a round, and go on with one worker in place of two."""
        stopped = QuickRun(self.folder / "stopped", shared=self.corpus, **self.changes)
        stopped.start_here(stop_after=1)
        changes = self.changes | {"site_ids": [0]}
        resumed = QuickRun(self.folder / "stopped", shared=self.corpus, **changes)
        assert outcome(resumed.start_here(), 2) == outcome(self.run, 2)

    def export(self, name: str, *, adapter: bool = False) -> Path:
        """Export the last round, and check that what is written can be read by other programs."""
        out = self.folder / name
        request = {"checkpoints": [self.run.url], "out": out, "adapter": adapter}
        assert export.main(request) == 0
        for path in out.rglob("*.json"):
            json.loads(path.read_text(), parse_constant=pytest.fail)
            named = path.name in ("merged_from.json", "adapter_config.json")
            assert named or str(self.folder) not in path.read_text()
        return out

    def check_answers(self, model: Any, tokenizer: Any) -> None:
        """Check logits, loss and accuracy against those of the run, on all texts of the test."""
        with (self.corpus / "test.csv").open() as file:
            rows = list(csv.DictReader(file))
        labels = torch.tensor([LABELS.index(row["author"]) for row in rows])
        texts = tokenizer(
            [row["text"] for row in rows],
            padding=True,
            truncation=True,
            max_length=16,
            return_tensors="pt",
        )
        found, expected = (logits(m, texts) for m in (model, self.restored()))
        assert expected.std() > 1e-3
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        reported = {name: values[-1] for name, (_, values) in self.run.results().items()}
        accuracy = (found.argmax(-1) == labels).double().mean()
        assert reported["validation.accuracy"] == pytest.approx(float(accuracy))
        loss = cross_entropy(found, labels)
        assert reported["validation.loss"] == pytest.approx(float(loss), rel=1e-5)

    def restored(self) -> torch.nn.Module:
        saved = open_saved(self.run.url, pytest.fail)
        config = settings_of(saved, {})
        return restore(saved, config, make_task(config), torch.device("cpu")).model


def logits(model: torch.nn.Module, texts: Any) -> torch.Tensor:
    model.eval()
    with torch.inference_mode():
        found: torch.Tensor = model(**texts).logits
    return found


@pytest.mark.parametrize("family", families("bart", "qwen3"))
def test_a_model_is_trained_whole(family: str, corpus: Path, tmp_path: Path) -> None:
    trained = Trained(family, corpus, tmp_path, "none")
    trained.check_resume()
    folder = trained.export("merged")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.id2label == dict(enumerate(LABELS))
    trained.check_answers(model, AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("family", families("bert_mlm", "xlnet", but=("ibert",)))
def test_an_adapter_is_trained(
    family: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Trained(family, corpus, tmp_path, "lora")
    trained.check_resume()
    folder = trained.export("merged")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    trained.check_answers(model, AutoTokenizer.from_pretrained(folder))
    monkeypatch.chdir(trained.export("adapter", adapter=True))
    loaded = as_the_readme_says(Path("README.md"))
    assert loaded["model"].config.id2label == dict(enumerate(LABELS))
    assert loaded["model"].peft_config["default"].base_model_name_or_path == str(trained.base)
    trained.check_answers(loaded["model"], loaded["tokenizer"])


def as_the_readme_says(readme: Path) -> dict[str, Any]:
    """Run the code of an adapter's README; returns its variables."""
    (code,) = re.findall("```python\n(.*?)```", readme.read_text(), re.DOTALL)
    variables: dict[str, Any] = {}
    exec(code, variables)
    return variables


def test_the_adapter_of_a_model_that_is_nowhere_else_has_the_model_beside_it(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Trained("tiny", corpus, tmp_path, "lora")
    monkeypatch.chdir(trained.export("adapter", adapter=True))
    assert not Path("config.json").exists()  # or transformers would take the folder for a model
    loaded = as_the_readme_says(Path("README.md"))
    trained.check_answers(loaded["model"], loaded["tokenizer"])
