"""Files of images, decoded: upright, in 8-bit colours, with one sentence for what is no image."""

import io
import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from scaling_fl.learning.tables.sources import reading
from scaling_fl.learning.text.labelled import DataError

Pixels = NDArray[np.uint8]
"""An image: (height, width, channels) of 1 channel (grey) or 3 (red, green, blue)."""

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is read; Pillow's other formats may start programs."""
MOST_PIXELS = 89_478_485
"""A decoded image of more pixels, which a small file can claim to have, would take over 256 MB."""
_OF_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")

# Pillow warns of what is refused here by the same limit.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(path: str) -> Pixels:
    """Read an image from a file (local, s3:// or gs://): (height, width, 3).

    Raises:
        DataError: as ``decode``, or the file is not there.
        UserError: it cannot be read now.
    """
    import fsspec

    with reading(path), fsspec.open(path, "rb") as file:
        content = file.read()
    return decode(content, path)


def decode(content: bytes, name: str) -> Pixels:
    """Decode the content of a file that a message calls ``name``: (height, width, 3).

    The image is turned upright as its EXIF data says, and of several the first one is taken. What
    is transparent shows white; of 16 bits for each pixel the higher 8 are kept.

    Raises:
        DataError: it is no image, cut short, too large, or of numbers that are no colours.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if math.prod(image.size) > MOST_PIXELS:
                raise Image.DecompressionBombError
            return np.asarray(_in_colours(ImageOps.exif_transpose(image), name))
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"{name}: an image must have at most {MOST_PIXELS:,} pixels, and this one has more; "
            "scale it down or remove it."
        ) from None
    except Exception as error:  # Pillow raises whatever its decoders come upon
        raise DataError(
            f"{name}: this must be a whole image ({', '.join(FORMATS)}), and is not "
            f"({_reason(error)}); save it again or remove it."
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "none of these formats"
    text = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return text or type(error).__name__


def _in_colours(image: Image.Image, name: str) -> Any:
    if image.mode == "F":
        raise DataError(
            f"{name}: an image must have whole numbers for colours, and this one has fractions; "
            "save it with 8 bits for each colour."
        )
    if image.mode in _OF_16_BITS:
        return _of_high_bits(image, name)
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def _of_high_bits(image: Image.Image, name: str) -> Pixels:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise DataError(
            f"{name}: a grey value must be from 0 to 65535, got {values.min()} to {values.max()}; "
            "save the image with 8 or 16 bits for each pixel."
        )
    return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)


def square(pixels: Pixels, side: int) -> Pixels:
    """Scale an image and cut its middle: (side, side, channels).

    The shorter side becomes ``side`` long, by triangles as wide as the scale (antialiased).
    """
    height, width = pixels.shape[:2]
    edge = min(height, width)
    left, top = (width - edge) / 2, (height - edge) / 2
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels)
    box = (left, top, left + edge, top + edge)
    scaled = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
    return np.asarray(scaled).reshape(side, side, pixels.shape[2])
