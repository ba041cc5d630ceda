"""The rules about bases of few bits, and about what bitsandbytes computes."""

from importlib.util import find_spec

from scaling_fl.config.merges import row_of
from scaling_fl.config.problems import Rule
from scaling_fl.config.schema import Config

_INSTALL = "run `pip install -c constraints.txt -e '.[quantised]'` in the folder of the project"


def _has_bitsandbytes() -> bool:
    return find_spec("bitsandbytes") is not None


def _leaves_base(config: Config) -> bool:
    return row_of(config.merge.method).moves_base is None


LOAD: tuple[Rule, ...] = (
    Rule(
        "load.bits",
        ("adapter.kind",),
        lambda c: c.load.bits != 8 or c.adapter.kind != "dora",
        "must be another number than 8 with adapter.kind=dora, whose norms PEFT cannot take of such"
        " weights",
        "set load.bits=4 or 16, or adapter.kind=lora",
    ),
    Rule(
        "packing",
        ("load.bits",),
        lambda c: not c.packing or c.load.bits != 8,
        "must be False with a base of 8 bits, in which the texts of a batch decide together which"
        " values are rounded",
        "drop packing, or set load.bits=4 or 16",
    ),
    Rule(
        "merge.method",
        ("load.bits",),
        lambda c: c.load.bits == 32 or _leaves_base(c),
        "must be another one with a base of fewer than 32 bits, which it would move by less than"
        " their precision",
        "drop load.bits or change merge.method",
    ),
    Rule(
        "load.bits",
        (),
        lambda c: c.load.bits > 8 or _has_bitsandbytes(),
        "must be 16 or 32 without bitsandbytes",
        _INSTALL,
    ),
    Rule(
        "load.attention",
        ("device", "precision"),
        lambda c: (
            c.load.attention != "flash_attention_2"
            or (c.device != "cpu" and c.precision == "bf16" and find_spec("flash_attn") is not None)
        ),
        "must be sdpa or eager without a GPU, precision=bf16 and the package flash-attn",
        "set load.attention=sdpa",
    ),
    Rule(
        "optimiser",
        (),
        lambda c: not c.optimiser.endswith("8bit") or _has_bitsandbytes(),
        "must be sgd, adam or adamw without bitsandbytes",
        _INSTALL,
    ),
    Rule(
        "optimiser",
        ("device",),
        lambda c: c.optimiser != "paged_adamw_8bit" or c.device != "cpu",
        "must be another one on the CPU, because it moves moments out of a GPU's memory",
        "set optimiser=adamw_8bit, or drop device",
    ),
)
