"""Files of images: every mode becomes the same colours, and what is no image is said so."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scaling_fl.learning.images.decoding import MOST_PIXELS, decode, read_image, square
from scaling_fl.learning.text.labelled import DataError

COLOURS = np.zeros((6, 9, 3), dtype=np.uint8)
COLOURS[:, :3], COLOURS[:, 3:6], COLOURS[3:, 6:] = (255, 0, 0), (0, 128, 0), (40, 40, 40)


def content(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def coloured() -> Image.Image:
    return Image.fromarray(COLOURS)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_the_same_in_every_mode(form: str, mode: str) -> None:
    image = coloured().convert(mode, palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(decode(content(image, form), "a"), COLOURS)


def test_grey_has_three_equal_channels() -> None:
    grey = np.arange(54, dtype=np.uint8).reshape(6, 9)
    found = decode(content(Image.fromarray(grey)), "a")
    np.testing.assert_array_equal(found, np.stack([grey] * 3, axis=-1))


def test_the_higher_half_of_16_bits_is_kept() -> None:
    grey = np.arange(54, dtype=np.uint16).reshape(6, 9) * 1200
    for form in ("PNG", "TIFF"):
        found = decode(content(Image.fromarray(grey), form), "a")
        np.testing.assert_array_equal(found[..., 0], grey >> 8)


def test_what_is_transparent_shows_white() -> None:
    alpha = Image.fromarray(np.full((6, 9), 0, dtype=np.uint8))
    image = coloured()
    image.putalpha(alpha)
    assert (decode(content(image), "a") == 255).all()
    palette = coloured().convert("P", palette=Image.Palette.ADAPTIVE)
    transparent = decode(content(palette, transparency=palette.getpixel((0, 0))), "a")
    assert (transparent[:, :3] == 255).all()
    np.testing.assert_array_equal(transparent[:, 3:6], COLOURS[:, 3:6])


def test_an_image_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    found = decode(content(coloured(), exif=exif), "a")
    np.testing.assert_array_equal(found, np.rot90(COLOURS, -1))


def huge_png() -> bytes:
    """Write the head of a PNG that claims to be 20,000 pixels high and wide."""
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: content(coloured().resize((90, 60)), "JPEG")[:-200], "whole image"),
        (lambda: content(coloured())[:40], "whole image"),
        (lambda: b"", "none of these formats"),
        (lambda: b"label,text\n1,hello\n", "none of these formats"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of these formats"),
        (lambda: content(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "fractions"),
        (lambda: content(Image.fromarray(np.full((4, 4), -7, np.int32)), "TIFF"), "-7 to -7"),
        (huge_png, f"at most {MOST_PIXELS:,} pixels"),
    ],
)
def test_what_is_no_image_is_refused_in_a_line_with_its_name(
    make: Callable[[], bytes], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(make())
    with pytest.raises(DataError) as refused:
        read_image(str(file))
    assert str(refused.value).startswith(f"{file}: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: this file must exist"):
        read_image(str(tmp_path / "gone.png"))


def test_a_square_is_the_middle_of_an_image() -> None:
    found = square(COLOURS, 6)
    np.testing.assert_array_equal(found[:, 2:4], COLOURS[:, 4:6][:, :2])
    assert square(COLOURS[..., :1], 4).shape == (4, 4, 1)
