"""The README.md of an adapter's folder: what the adapter belongs to, and how both are loaded."""

from collections.abc import Sequence

from scaling_fl.learning.options import Load

_CARD = """\
---
library_name: peft
---

# An adapter for {base_model}

It classifies a text as one of {num_labels} labels: {labels}.

```python
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # where this file is
labels = {names!r}
base = AutoModelForSequenceClassification.from_pretrained(
    {place},
    num_labels=len(labels),
    id2label=dict(enumerate(labels)),
    label2id={{name: number for number, name in enumerate(labels)}},
    problem_type="single_label_classification",
    pad_token_id={pad_token_id},
    dtype=torch.float32,
    ignore_mismatched_sizes=True,  # the head comes with the adapter
)
model = PeftModel.from_pretrained(base, folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```

{origin}
"""
_CAUSAL_CARD = """\
---
library_name: peft
---

# An adapter for {base_model}

It was taught to answer instructions.

```python
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer{import_more}

folder = "."  # where this file is
base = AutoModelForCausalLM.from_pretrained({place}, dtype=torch.{dtype}{quantisation})
model = PeftModel.from_pretrained(base, folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```

{origin}
"""
_IMAGE_CARD = """\
---
library_name: peft
---

# An adapter for {base_model}

It gives an image {kind} {num_labels} labels: {labels}.

```python
import torch
from peft import PeftModel
from transformers import AutoImageProcessor, AutoModelForImageClassification

folder = "."  # where this file is
labels = {names!r}
base = AutoModelForImageClassification.from_pretrained(
    {place},
    num_labels=len(labels),
    id2label=dict(enumerate(labels)),
    label2id={{name: number for number, name in enumerate(labels)}},
    problem_type="{problem_type}",
    dtype=torch.float32,
    ignore_mismatched_sizes=True,  # the head comes with the adapter
)
model = PeftModel.from_pretrained(base, folder)
processor = AutoImageProcessor.from_pretrained(folder)
```
{note}
{origin}
"""
_DOCUMENT_CARD = """\
---
library_name: peft
---

# An adapter for {base_model}

It was taught to answer questions about pages: T5 with spatial and visual embeddings (VT5), or UDOP.
The files are PEFT's. For a UDOP, `PeftModel.from_pretrained(base, folder)` loads them onto the
base; no library has a VT5, whose adapter is merged into a whole model by the program that wrote
this folder.

{origin}
"""
_OF_ANOTHER_SIZE = """
It was trained on images of another size than its base: call it with
`interpolate_pos_encoding=True`.
"""
BESIDE = "base_model"
"""The folder, inside that of the adapter, of a base model that cannot be had anywhere else."""


def adapter_card(base_model: str, label_names: Sequence[str], pad_token_id: int) -> str:
    """Write the text; its code runs where the base model can be loaded."""
    return _CARD.format(
        num_labels=len(label_names),
        labels=", ".join(label_names),
        names=list(label_names),
        pad_token_id=pad_token_id,
        **_base(base_model),
    )


def image_card(
    base_model: str, label_names: Sequence[str], problem_type: str, *, is_of_another_size: bool
) -> str:
    """Write the text for an adapter of a classifier of images."""
    return _IMAGE_CARD.format(
        kind="any of" if problem_type.startswith("multi") else "one of",
        num_labels=len(label_names),
        labels=", ".join(label_names),
        names=list(label_names),
        problem_type=problem_type,
        note=_OF_ANOTHER_SIZE * is_of_another_size,
        **_base(base_model),
    )


def document_card(base_model: str) -> str:
    """Write the text for an adapter of a model that answers questions about pages."""
    return _DOCUMENT_CARD.format(**_base(base_model))


def causal_card(base_model: str, load: Load) -> str:
    """Write the text for an adapter of a causal language model that was loaded so."""
    is_quantised = load.bits < 16
    return _CAUSAL_CARD.format(
        import_more=", BitsAndBytesConfig" * is_quantised,
        dtype="bfloat16" if load.bits == 16 else "float32",
        quantisation=f", quantization_config={_config(load)}" * is_quantised,
        **_base(base_model),
    )


def _config(load: Load) -> str:
    if load.bits == 8:
        return "BitsAndBytesConfig(load_in_8bit=True)"
    return (
        'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", '
        f"bnb_4bit_use_double_quant={load.double_quantisation})"
    )


def _base(base_model: str) -> dict[str, str]:
    is_beside = base_model == BESIDE
    return {
        "base_model": "the model beside it" if is_beside else base_model,
        "place": f'f"{{folder}}/{BESIDE}"' if is_beside else repr(base_model),
        "origin": _origin(base_model),
    }


def _origin(base_model: str) -> str:
    if base_model == BESIDE:
        return f"The base model cannot be had elsewhere, so that it is saved here, in `{BESIDE}`."
    return (
        f"`{base_model}` is an id of the Hugging Face hub, or else a folder of the machine that "
        "trained the adapter. The base must be that model, weight for weight."
    )
