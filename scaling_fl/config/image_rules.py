"""The rules of the tasks on images."""

from collections.abc import Callable, Iterator, Sequence

from scaling_fl.config.conditions import is_set
from scaling_fl.config.own import is_own
from scaling_fl.config.problems import Problem, Rule
from scaling_fl.config.schema import Config
from scaling_fl.config.types import IMAGE_TASKS

_OF_TEXTS = ("albert", "bert", "distilbert", "minilm", "smollm2")
_OF_USERS = "user_id"


def _is_of_images(config: Config) -> bool:
    return config.task_name in IMAGE_TASKS


def _has_several_labels(config: Config) -> bool:
    return config.task_name == "flair" or config.data.multi_label


def _is_left_alone(path: str) -> Callable[[Config], bool]:
    return lambda config: not _is_of_images(config) or not is_set(config, path)


IMAGES: tuple[Rule, ...] = (
    Rule(
        "model",
        ("task_name",),
        lambda c: not _is_of_images(c) or c.model not in _OF_TEXTS,
        "must be a model of images",
        "set model=dinov2_small, tiny or an id such as google/vit-base-patch16-224-in21k",
    ),
    Rule(
        "model",
        ("task_name",),
        lambda c: (
            c.model != "dinov2_small"
            or _is_of_images(c)
            or c.task_name == "docvqa"
            or is_own(c.task_name)
        ),
        "must be a model of texts",
        "set model=minilm, or a task of images",
    ),
    *(
        Rule(
            path,
            ("task_name",),
            _is_left_alone(path),
            "must be left alone for images, which are all of one size",
            f"drop {path}",
        )
        for path in ("max_seq_len", "length_grouped")
    ),
    Rule(
        "metrics",
        ("task_name", "data.multi_label"),
        lambda c: not _is_of_images(c) or not _has_several_labels(c) or not c.metrics,
        "must be left alone for images with several labels, which have no confusion matrix",
        "drop metrics",
    ),
    Rule(
        "partition.column",
        ("task_name",),
        lambda c: c.task_name != "flair" or c.partition.column in (None, _OF_USERS),
        f"must be {_OF_USERS} for flair, whose clients are its users",
        f"set partition.column={_OF_USERS}",
    ),
)


def missing_images(config: Config, missing: Sequence[str]) -> Iterator[Problem]:
    """Yield which places of images must be given; one place may hold both splits, but for images.

    ``missing`` are the settings of the places that are not given.
    """
    task = config.task_name
    if "train_path" in missing and task != "fashion_mnist":  # which has a usual place
        remedy = f"set train_path to the data of {task}"
        yield Problem("train_path", f"must be given for {task}", "None", remedy)
    if task == "images" and "test_path" in missing and config.data.test_share is None:
        yield Problem(
            "test_path",
            "must be given for images unless data.test_share is",
            "None",
            "give test_path, or hold out a part of the training images by data.test_share=0.2",
        )
