"""Configuration -> task: the table of all tasks, with the function that makes each of them."""

from collections.abc import Sequence

from scaling_fl.composition import own
from scaling_fl.config import Config
from scaling_fl.config.own import is_own
from scaling_fl.learning.cache import cache_folder
from scaling_fl.learning.options import (
    Columns,
    ImageOptions,
    Load,
    MakeTask,
    QuestionOptions,
    TaskOptions,
)
from scaling_fl.learning.task import Metric, Task
from scaling_fl.learning.tasks.classification import (
    agnews,
    imdb,
    spooky_author,
    twenty_newsgroups,
    twenty_newsgroups_topics,
    yelp,
)
from scaling_fl.learning.tasks.classification.family import classification
from scaling_fl.learning.tasks.classification.own_table import own_table
from scaling_fl.learning.tasks.documents.family import DocumentQuestions
from scaling_fl.learning.tasks.images.flair import flair
from scaling_fl.learning.tasks.images.own import own_images
from scaling_fl.learning.tasks.images.published import cifar10, fashion_mnist
from scaling_fl.learning.tasks.instruction import rows
from scaling_fl.learning.tasks.instruction.family import instruction_tuning

TASKS: dict[str, MakeTask] = {
    "agnews": classification("agnews", agnews),
    "yelp": classification("yelp", yelp),
    "imdb": classification("imdb", imdb),
    "spooky_author": classification("spooky_author", spooky_author),
    "20newsgroups": classification("20newsgroups", twenty_newsgroups),
    "20newsgroups_topics": classification("20newsgroups_topics", twenty_newsgroups_topics),
    "table": own_table,
    "cifar10": cifar10,
    "fashion_mnist": fashion_mnist,
    "flair": flair,
    "images": own_images,
    "docvqa": DocumentQuestions,
    "generalnlp": instruction_tuning("generalnlp", rows.GENERALNLP, "alpaca"),
    "medical": instruction_tuning("medical", rows.MEDICAL, "alpaca"),
    "finance": instruction_tuning("finance", rows.INSTRUCTION_AND_INPUT, "alpaca"),
    "code": instruction_tuning("code", rows.INSTRUCTION_AND_INPUT, "alpaca"),
    "instruction": instruction_tuning("instruction", rows.ColumnRule(), "chat"),
    "reddit": instruction_tuning("reddit", rows.REDDIT, "text"),
}


def make_task(config: Config, *, labels: Sequence[str] | None = None) -> Task:
    """Make the task of a run; does not read or load anything yet.

    ``labels`` are those of a saved state: a table need not be there to have them.
    """
    data, is_table = config.data, config.task_name == "table"
    options = TaskOptions(
        model=config.model,
        max_seq_len=config.max_seq_len,
        seed=config.seed,
        data_seed=config.data_seed,
        cache_dir=cache_folder(config.data.cache_dir),
        paths={"train": config.train_path, "test": config.test_path},
        max_examples={
            "train": config.data.max_train_examples,
            "test": config.data.max_test_examples,
        },
        text=None if is_table else " ".join(_names(data.text)) or None,
        columns=Columns(
            text=_names(data.text) if is_table else (),
            text_pair=_names(data.text_pair),
            image=data.image,
            label=data.label,
            client=config.partition.column,
            group=config.privacy.group_column,
            instruction=_names(data.instruction),
            response=data.response,
            messages=data.messages,
        ),
        system=data.system,
        template=data.template,
        packing=config.packing,
        questions=_questions(config),
        load=Load(**config.load.model_dump()),
        images=ImageOptions(
            size=data.image_size,
            augment=data.augment,
            several_labels=data.multi_label,
            folder=data.images,
        ),
        test_share=data.test_share,
        holds_out_clients=data.test_of == "clients",
        labels=tuple(labels) if labels else data.labels,
        metrics=own_metrics(config),
        source=own.source_of(config.task_name, "task_name") if is_own(config.task_name) else "",
    )
    make: MakeTask = own.own_or(TASKS, config.task_name, "task_name")
    return make(options)


def own_metrics(config: Config) -> dict[str, Metric]:
    """Find the user's metrics, by the names of their functions.

    Raises:
        UserError: one of them cannot be found.
    """
    return {name.partition(":")[2]: own.find_callable(name, "metrics") for name in config.metrics}


def _names(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value or ()


def _questions(config: Config) -> QuestionOptions:
    options = config.evaluation.model_dump(exclude={"questions"})
    return QuestionOptions(questions=config.evaluation.files, **options)
