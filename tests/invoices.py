"""Invoices drawn from templates: words with known boxes, and questions with known answers."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    T5Config,
    UdopConfig,
    UdopForConditionalGeneration,
)

from scaling_fl.learning.models.documents import load_document_tokenizer
from scaling_fl.learning.models.vt5 import VT5
from scaling_fl.learning.models.vt5_files import save_vt5

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
WIDTH, HEIGHT = 400, 520
_AMOUNTS = [f"{number}.50" for number in range(20, 50)]
_DATES = [f"{day:02}/03" for day in range(1, 29)]
FIELDS = {
    "total": _AMOUNTS,
    "tax": _AMOUNTS,
    "date": _DATES,
    "due": _DATES,
    "city": ["Oslo", "Graz", "Nice", "Bonn", "Turin", "Ghent", "Lodz", "Split", "Porto", "Cork"],
}
"""What an invoice has, with the values that each may take: some are told apart by names alone."""
FONT_NAMES = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "DejaVuSans-Bold.ttf")


class Invoice(NamedTuple):
    """A page with what is known about it; boxes are shares of the page."""

    page: Image.Image
    words: list[str]
    boxes: list[tuple[float, float, float, float]]
    values: dict[str, str]
    provider: str


def draw_invoice(number: int, provider: int) -> Invoice:
    """Draw an invoice; a provider has a font, a margin and an order of fields of its own."""
    own, chance = random.Random(provider), random.Random(f"{provider}/{number}")
    font = ImageFont.truetype(str(FONTS / FONT_NAMES[provider % len(FONT_NAMES)]), 24)
    fields, margin = own.sample(sorted(FIELDS), len(FIELDS)), own.randint(20, 90)
    values = {name: chance.choice(FIELDS[name]) for name in fields}
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(page)
    words, boxes = [], []
    lines = [["Invoice"], *([name.capitalize(), values[name]] for name in fields)]
    for row, line in enumerate(lines):
        left = float(margin)
        for word in line:
            box = draw.textbbox((left, 40 + 70 * row), word, font=font)
            draw.text((left, 40 + 70 * row), word, font=font, fill="black")
            words.append(word)
            boxes.append((box[0] / WIDTH, box[1] / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT))
            left = box[2] + 24
    return Invoice(page, words, boxes, values, f"vendor_{provider}")


def write_invoices(folder: Path, name: str, numbers: Sequence[int], *, providers: int = 4) -> Path:
    """Draw an invoice for each number; write a table of a question each, whose pages lie beside.

    Two providers make a client.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in numbers:
        provider = number % providers
        invoice = draw_invoice(number, provider)
        image = f"{name}_{number}.png"
        invoice.page.save(folder / image, compress_level=1)
        field = sorted(FIELDS)[number // providers % len(FIELDS)]
        rows.append(
            {
                "question": f"What is the {field}?",
                "answers": [invoice.values[field]],
                "words": invoice.words,
                "boxes": [list(box) for box in invoice.boxes],
                "image": image,
                "client": f"client_{provider // 2}",
                "provider": invoice.provider,
            }
        )
    path = folder / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def records_of(numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Write invoices as the records of the competition, pages aside."""
    records = []
    for number in numbers:
        invoice = draw_invoice(number, number % 2)
        records.append(
            {
                "question": "What is the total?",
                "answers": invoice.values["total"],
                "ocr_tokens": invoice.words,
                "ocr_normalized_boxes": np.array(invoice.boxes),
                "image_name": f"page_{number}",
                "set_name": "train",
            }
        )
    return records


def write_providers(path: Path) -> None:
    """Say whose the records 1 to 4 of client 0 are; the header is number 0."""
    path.write_text(json.dumps({"client_0": {"vendor_0": [1, 3], "vendor_1": [2, 4]}}))


def save_small_vt5(folder: Path) -> Path:
    """Save a VT5 of few layers and no training, whose tokenizer has the words of all invoices."""
    values = {value.lower() for each in FIELDS.values() for value in each}
    prompt = ["question:", "context:", "What", "is", "the", *(f"{name}?" for name in FIELDS)]
    words = ["<pad>", "</s>", "<unk>", "invoice", *prompt, *FIELDS, *sorted(values)]
    model = models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>")
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    image_model = {
        **{"image_size": 32, "patch_size": 16, "hidden_size": 32, "intermediate_size": 64},
        **{"num_hidden_layers": 1, "num_attention_heads": 2},
    }
    config = T5Config(
        vocab_size=len(words),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        image_model=image_model,
        hidden_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    save_vt5(VT5(config), folder)
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    return folder


def small_udop() -> UdopForConditionalGeneration:
    """Make a UDOP of few layers, for the bytes of any text."""
    tokenizer = load_document_tokenizer("tiny", Path())
    torch.manual_seed(0)
    config = UdopConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        image_size=32,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return UdopForConditionalGeneration(config).eval()


def save_small_udop(folder: Path) -> Path:
    small_udop().save_pretrained(folder)
    load_document_tokenizer("tiny", Path()).save_pretrained(folder)
    return folder
