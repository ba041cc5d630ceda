"""Conversations about sums, and questions about them, for a tiny language model."""

import json
from pathlib import Path
from typing import Any


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def conversation_settings(folder: Path) -> dict[str, Any]:
    """Write conversations and two files of questions about them; returns the settings."""
    rows = [
        {"instruction": f"What is {a} + {b}?", "input": "", "output": str(a + b)}
        for a in range(6)
        for b in range(6)
    ]
    sums = [
        {
            "question": row["instruction"],
            "choices": [str(n) for n in range(4)],
            "answer": "ABCD"[number % 4],
            "subject": "even" if number % 2 else "odd",
        }
        for number, row in enumerate(rows[:11])
    ]
    words = [
        {"question": f"Which word? {n}", "choices": ["one", "two words", "x"], "answer": n % 3}
        for n in range(7)
    ]
    return {
        "task_name": "instruction",
        "train_path": write_rows(folder / "train.jsonl", rows),
        "test_path": write_rows(folder / "test.jsonl", rows[::5]),
        "max_seq_len": 128,
        "num_rounds": 2,
        "val_batch_size": 3,
        "evaluation": {
            "questions": [
                write_rows(folder / "sums.v1.jsonl", sums),
                write_rows(folder / "words.jsonl", words),
            ],
            "max_questions": 9,
            "max_generated": 4,
        },
    }
