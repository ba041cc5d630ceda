"""A run that does not learn says so: at once where nothing moves, and at its end."""

from pathlib import Path

from harness import Run
from one_process import QuickRun

from scaling_fl.reporting.learned import why_nothing_was_learned


def verdict(run: Run) -> str | None:
    settings = run.config.model_dump(mode="json")
    return why_nothing_was_learned(run.record.metrics, run.record.baseline, settings)


def test_the_defaults_of_the_seed_move_no_small_model_and_the_end_says_so(
    corpus: Path, tmp_path: Path
) -> None:
    seeds = {"optimiser": "sgd", "learning_rate": 2e-5}
    stuck = QuickRun(tmp_path / "stuck", shared=corpus, **seeds).start_here()
    sentence = verdict(stuck)
    assert sentence
    assert "learning_rate=2e-05 with optimiser=sgd hardly moves a model" in sentence
    assert stuck.record.baseline
    assert stuck.record.baseline["num_examples"] == 50
    learning = QuickRun(tmp_path / "learning", shared=corpus, num_local_epochs=4).start_here()
    assert verdict(learning) is None


def test_what_does_not_move_is_told_after_its_first_round(corpus: Path, tmp_path: Path) -> None:
    """And once: two rounds of it are one warning each."""
    still = {"optimiser": "sgd", "learning_rate": 1e-30, "num_rounds": 2}
    run = Run(tmp_path / "run", shared=corpus, **still).start()
    told = [event["text"] for event in run.events if event.get("level") == "warning"]
    assert [text.partition(": ")[0] for text in told] == [
        "round 1",
        "round 1 has not moved the global state",
    ]
    assert "the update of clients 0, 1, 2, 3 is exactly zero" in told[0]
