"""The rules about files of questions."""

import os
from collections import Counter
from collections.abc import Iterator

from scaling_fl.config.evaluation_settings import question_name
from scaling_fl.config.problems import Problem, Rule
from scaling_fl.config.schema import Config

EVALUATION: tuple[Rule, ...] = (
    Rule(
        "evaluation.rule",
        ("evaluation.layout",),
        lambda c: c.evaluation.rule != "generation" or c.evaluation.layout != "cloze",
        "must be likelihood for choices without letters, which FlowerTune's rule does not know",
        "set evaluation.rule=likelihood or evaluation.layout=plain",
    ),
)


def question_problems(config: Config) -> Iterator[Problem]:
    """Yield what is wrong with the places and the names of the files."""
    paths = config.evaluation.questions or ()
    for path in paths:
        if "://" not in path and not os.path.exists(os.path.expanduser(path)):
            yield Problem(
                "evaluation.questions",
                "must name existing files or folders",
                repr(path),
                f"correct the path (looked in {os.getcwd()})",
            )
    names = Counter(question_name(path) for path in paths)
    if twice := [name for name, number in names.items() if number > 1]:
        yield Problem(
            "evaluation.questions",
            "must name files of different names, by which their metrics are named",
            f"{names[twice[0]]} named {twice[0]}",
            "rename one of them",
        )


def evaluation_problems(config: Config) -> list[Problem]:
    """List all that is wrong with what is asked of a saved state."""
    broken = [rule.problem(config) for rule in EVALUATION if not rule.holds(config)]
    return [*question_problems(config), *broken]
