"""What ``scripts/evaluate.py`` was asked for, and the settings that follow from it."""

from dataclasses import dataclass
from typing import Any

from scaling_fl.commands.endings import Misused
from scaling_fl.runtime.tracking.places import Saved


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What was asked for; None leaves a setting as the run had it."""

    checkpoint: str
    model: str | None = None
    task_name: str | None = None
    test_path: str | None = None
    text: str | None = None
    """Columns of a table, with commas between them, as ``text_pair``."""
    text_pair: str | None = None
    label: str | None = None
    max_seq_len: int | None = None
    batch_size: int | None = None
    max_test_examples: int | None = None
    device: str | None = None
    client: int | None = None
    node: str | None = None
    """The folder of the job on the client's node, if the client's part of the model is there."""
    per_class: bool = False
    tiers: bool = False
    json: bool = False
    questions: list[str] | None = None
    layout: str | None = None
    rule: str | None = None
    max_questions: int | None = None
    harness: str | None = None
    """Tasks of lm-evaluation-harness, with commas between them."""
    harness_folder: str | None = None

    @property
    def asks(self) -> bool:
        """Say whether questions are asked in place of the test data."""
        return bool(self.questions or self.harness)


def changes_of(request: EvaluationRequest, saved: Saved) -> dict[str, Any]:
    """Turn what was asked for into settings that replace the run's."""
    data: dict[str, Any] = {}
    changes: dict[str, Any] = {"data": data}
    stored = saved.checkpoint.config
    if request.task_name not in (None, stored["task_name"]):
        changes["test_path"] = None  # those of the run's own task
        data |= dict.fromkeys(("text", "text_pair", "label", "labels", "test_share"))
        data |= dict.fromkeys(("instruction", "response", "messages"))
    if request.task_name or request.test_path:
        # The run's subset, or what it held out, is of its own data.
        data |= {"max_test_examples": None, "test_share": None}
    columns = {"text": request.text, "text_pair": request.text_pair, "label": request.label}
    chosen = {name: value for name, value in columns.items() if value is not None}
    if chosen and (request.task_name or stored["task_name"]) != "table":
        raise Misused(
            f"--{next(iter(chosen)).replace('_', '-')} needs a table, got task_name="
            f"{request.task_name or stored['task_name']}; leave it out, or give --task-name table."
        )
    data |= chosen
    # Where the run was need not be here, but the CPU's bits are those of a run on the CPU.
    changes["device"] = "cpu" if stored["device"] == "cpu" else "auto"
    given = {
        "model": request.model,
        "task_name": request.task_name,
        "test_path": request.test_path,
        "max_seq_len": request.max_seq_len,
        "val_batch_size": request.batch_size,
        "device": request.device,
    }
    changes |= {name: value for name, value in given.items() if value is not None}
    if request.max_test_examples is not None:
        data["max_test_examples"] = request.max_test_examples
    return changes
