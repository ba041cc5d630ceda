"""The rules of the task that answers questions about pages."""

from scaling_fl.config.problems import Rule
from scaling_fl.config.schema import Config

_OF_OTHERS = ("albert", "bert", "distilbert", "minilm", "smollm2", "dinov2_small")


def _has_its_pages(config: Config) -> bool:
    paths = (config.train_path, config.test_path)
    return config.data.images is not None or not any("://" in (path or "") for path in paths)


DOCUMENTS: tuple[Rule, ...] = (
    Rule(
        "model",
        ("task_name",),
        lambda c: c.task_name != "docvqa" or c.model not in _OF_OTHERS,
        "must be a model that reads pages",
        "set model=rubentito/vt5-base-spdocvqa, microsoft/udop-large, tiny or a folder",
    ),
    Rule(
        "data.images",
        ("task_name", "train_path", "test_path"),
        lambda c: c.task_name != "docvqa" or _has_its_pages(c),
        "must name a local folder of pages when the table is in an object store",
        "fetch the images, and set data.images to their folder",
    ),
)
