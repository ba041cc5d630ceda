"""The tasks of lm-evaluation-harness (EleutherAI), an extra, on a model in memory.

What the harness prints is thrown away, and so is what it writes beside its metrics: the names and
versions of the machine. It seeds the global generators, so nothing may be drawn after it.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from scaling_fl.core.errors import InputError, UserError


def evaluate_by_harness(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    folder: str | None,
    batch_size: int,
    max_questions: int | None = None,
) -> dict[str, float]:
    """Return the metrics of a model on tasks by name, as ``harness.<task>.<metric>``.

    The tasks are the harness's own, whose data comes from the Hugging Face hub, or those of the
    YAML files in ``folder``. Each task asks its first ``max_questions``, None: all of them.

    Raises:
        UserError: the harness is not installed, or it cannot load or ask a task.
    """
    if folder is not None and not Path(folder).expanduser().is_dir():
        raise InputError(f"--harness-folder must be a folder that exists, got {folder}; check it.")
    with _silence():
        simple_evaluate, HFLM, TaskManager = _harness()
        known = TaskManager(
            include_path=folder and str(Path(folder).expanduser()), include_defaults=folder is None
        )
        unknown = [name for name in tasks if name not in known.all_tasks]
    if unknown:
        raise InputError(
            f"--harness must name tasks of {folder or 'lm-evaluation-harness'}, got {unknown[0]}; "
            "check the name."
        )
    try:
        with _silence():
            found = simple_evaluate(
                model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
                tasks=list(tasks),
                task_manager=known,
                limit=max_questions,
                bootstrap_iters=0,
                log_samples=False,
            )
    except Exception as error:  # of its own, of datasets, of the network, of a task's code
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"lm-evaluation-harness could not evaluate {','.join(tasks)} ({reason}); check the "
            "tasks and, for their data, the network."
        ) from error
    return _flat(found["results"])


def _harness() -> tuple[Any, Any, Any]:
    # It imports a package named evaluate, which scripts/evaluate.py must not stand for.
    sys.path[:] = [place for place in sys.path if not Path(place, "evaluate.py").is_file()]
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        if error.name != "lm_eval":
            raise
        raise UserError(
            "--harness needs the extra harness, which is not installed; run "
            "pip install -c constraints.txt -e '.[harness]'."
        ) from None
    return simple_evaluate, HFLM, TaskManager


def _flat(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Name the metrics; the harness writes them as ``acc,none`` beside ``acc_stderr,none``."""
    return {
        f"harness.{task}.{name.removesuffix(',none').replace(',', '.')}": float(value)
        for task, metrics in results.items()
        for name, value in metrics.items()
        if isinstance(value, int | float) and "," in name and "_stderr" not in name
    }


@contextmanager
def _silence() -> Iterator[None]:
    """Throw away what is printed meanwhile, by this process or by those that it starts."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            for number in (1, 2):
                os.dup2(nothing.fileno(), number)
            yield
    finally:
        for number, earlier in zip((1, 2), kept, strict=True):
            os.dup2(earlier, number)
            os.close(earlier)
