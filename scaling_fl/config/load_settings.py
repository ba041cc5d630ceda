"""The section about the weights of a base that is not trained."""

from typing import Annotated

from scaling_fl.config.base import Section
from scaling_fl.config.conditions import With, WithTask
from scaling_fl.config.types import LANGUAGE_TASKS, AttentionName, Bits

OF_LANGUAGE_MODELS = WithTask(*LANGUAGE_TASKS)


class LoadSettings(Section):
    """How the weights of a base that is not trained are held in memory."""

    bits: Annotated[
        Bits,
        OF_LANGUAGE_MODELS,
        With("adapter.kind", "lora", "dora", because="what is trained has 32 bits"),
    ] = 32
    """Bits of a weight: 4 (NF4) or 8 (LLM.int8) in linear layers and 32 elsewhere, by bitsandbytes;
    16 (bf16) or 32 in all of the base. An adapter always has 32."""
    double_quantisation: Annotated[bool, With(".bits", 4)] = True
    """Quantise the scales of the blocks of 64 weights too: 4.127 bits for each weight, else 4.5."""
    attention: Annotated[AttentionName | None, OF_LANGUAGE_MODELS] = None
    """What computes attention; None leaves it to transformers, which takes sdpa where it can.
    flash_attention_2 needs a GPU, precision=bf16 and the package flash-attn."""
