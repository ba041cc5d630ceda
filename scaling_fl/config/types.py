"""The kinds of values that settings have: numbers in ranges, names, places without credentials."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator

TaskName = Literal[
    "agnews",
    "yelp",
    "imdb",
    "spooky_author",
    "20newsgroups",
    "20newsgroups_topics",
    "table",
    "cifar10",
    "fashion_mnist",
    "flair",
    "images",
    "docvqa",
    "generalnlp",
    "medical",
    "finance",
    "code",
    "instruction",
    "reddit",
]
INSTRUCTION_TASKS = ("generalnlp", "medical", "finance", "code", "instruction")
LANGUAGE_TASKS = (*INSTRUCTION_TASKS, "reddit")
IMAGE_TASKS = ("cifar10", "fashion_mnist", "flair", "images")
OptimiserName = Literal["sgd", "adam", "adamw", "adamw_8bit", "paged_adamw_8bit"]
ServerOptimiserName = Literal["sgd", "adam", "adamw", "adagrad", "yogi"]
ScheduleKind = Literal["constant", "linear", "cosine"]
PartitionKind = Literal[
    "iid", "label_sorted", "dirichlet_by_class", "dirichlet_by_client", "column"
]
WeightingName = Literal["examples", "uniform"]
Bits = Literal[4, 8, 16, 32]
AttentionName = Literal["eager", "sdpa", "flash_attention_2"]
AdapterKind = Literal["none", "lora", "dora", "head"]
CodecName = Literal["none", "fp16", "bf16", "int8", "nf4", "nf4_double"]
UploadValues = Literal["update", "state"]
SamplingKind = Literal["fixed", "poisson"]
RankChoice = Literal["first", "largest"]
ScaleChoice = Literal["adapter", "own"]
PrivacyUnit = Literal["client", "group"]
TestOf = Literal["rows", "clients"]
DeviceName = Literal["auto", "cpu", "cuda"]
DataOrder = Literal["fresh", "fixed"]
PrecisionName = Literal["fp32", "bf16"]
AccountantName = Literal["rdp", "pld"]
QuestionLayoutName = Literal[
    "plain", "cloze", "mmlu", "medmcqa", "careqa", "medqa", "pubmedqa", "fpb", "fiqa", "tfns"
]
QuestionRule = Literal["likelihood", "generation"]
WatchedMetric = Literal[
    "validation.accuracy",
    "validation.f1_macro",
    "validation.average_precision_macro",
    "validation.average_precision_micro",
    "validation.f1_micro",
    "validation.loss",
    "validation.perplexity",
    "validation.token_accuracy",
    "validation.anls",
    "validation.exact_match",
    "validation.rouge_l",
    "train.accuracy",
    "train.token_accuracy",
    "train.loss",
]


class Choices:
    """The names that text may be, for messages and documentation: an annotation."""

    def __init__(self, *names: str) -> None:
        self.names = names


# A URL that carries a user, a password or a signature: such a value must not reach a stored run.
_USERINFO = re.compile(r"(?<=://)(?:[^/@\s]*|[^@\s]*:[^@\s]*)@")
_SIGNED = re.compile(r"([?&][\w-]*(?:signature|token|secret|password|sig|key)=)[^&\s]+", re.I)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def redact(text: str) -> str:
    """Replace the credentials inside a URL by stars."""
    return _SIGNED.sub(r"\1***", _USERINFO.sub("***@", text))


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _lists_to_tuples(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_list_to_tuple(item) for item in value)
    return value


def split_at_commas(value: Any) -> Any:
    """Take ``query,value`` for a list, because Sacred's parser wants every name in quotes."""
    return tuple(value.split(",")) if isinstance(value, str) else _list_to_tuple(value)


def _text_from_whole_number(value: Any) -> Any:
    """Undo Sacred's parser, which turns job_name=20261121 into a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _several(value: Any) -> tuple[str, ...] | None:
    """Read names as they are typed: ``a``, ``a,b``, ``[a,b]``, numbers among them, or a list."""
    if value is None:
        return None
    if isinstance(value, str):
        inside = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        value = [part.strip() for part in inside.split(",")]
    value = value if isinstance(value, list | tuple) else [value]
    names = tuple(str(name) if isinstance(name, int | float) else name for name in value)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError("must be one name, or several with commas between them")
    if len(set(names)) < len(names):
        raise ValueError("must name each of them once")
    return names


def _one_or_several(value: Any) -> str | tuple[str, ...] | None:
    """Read names; a single one stays the text that it is."""
    names = _several(value)
    return names[0] if names and len(names) == 1 else names


def _name(value: Any) -> str | None:
    name = _text_from_whole_number(value)
    if name is None or (isinstance(name, str) and name.strip()):
        return name
    raise ValueError("must be the name of a column")


def _whole(value: Any) -> Any:
    """Take 2.5e9 for a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _count_or_fraction(value: Any) -> int | float:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, float) and 0 < value <= 1:
        return value
    raise ValueError("must be a count (1, 2, ...) or a fraction with a decimal point in (0, 1]")


def _plain_name(value: Any) -> str | None:
    text = _text_from_whole_number(value)
    if text is None or (isinstance(text, str) and _PLAIN_NAME.fullmatch(text)):
        return text
    raise ValueError("must be a plain name of letters, digits, '.', '_' and '-'")


def _location(value: Any) -> Any:
    if isinstance(value, str) and redact(value) != value:
        raise ValueError("must not contain credentials")
    return value


def _local_location(value: Any) -> Any:
    if isinstance(value, str) and "://" in value:
        raise ValueError("must be a folder on this machine")
    return _location(value)


Count = Annotated[int, Field(ge=1, le=10**12)]
NumBytes = Annotated[int, Field(ge=1, le=10**15), BeforeValidator(_whole)]
Seed = Annotated[int, Field(ge=0)]
SmallSeed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # which NumPy takes, whom Sacred seeds
Positive = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Delta = Annotated[float, Field(gt=0, lt=1)]
Density = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Quantile = Annotated[float, Field(gt=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0)]
CountOrFraction = Annotated[int | float, PlainValidator(_count_or_fraction)]
SiteIds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), BeforeValidator(_list_to_tuple)
]
ClientIds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), BeforeValidator(_list_to_tuple)
]
Cohorts = Annotated[tuple[ClientIds, ...], Field(min_length=1), BeforeValidator(_lists_to_tuples)]
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(split_at_commas)]
OneOrSeveral = Annotated[str | tuple[str, ...] | None, BeforeValidator(_one_or_several)]
Several = Annotated[tuple[str, ...] | None, BeforeValidator(_several)]
ColumnName = Annotated[str | None, BeforeValidator(_name)]
PlainName = Annotated[str | None, PlainValidator(_plain_name)]
Author = Annotated[str, BeforeValidator(_text_from_whole_number)]
Location = Annotated[str, Field(min_length=1), BeforeValidator(_location)]
LocalFolder = Annotated[str, Field(min_length=1), BeforeValidator(_local_location)]
