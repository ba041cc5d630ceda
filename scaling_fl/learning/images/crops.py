"""What a model sees of stored pixels: whole images, or random cuts of them, as tensors.

A cut, its scaling and its mirroring are one linear map for the rows of an image and one for its
columns, so that a batch takes two products of matrices, on any device.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_SHARES = (0.08, 1.0)
_RATIOS = (3 / 4, 4 / 3)
_TRIES = 10


class Cuts(NamedTuple):
    """Rectangles in square images, as tensors of n values (pixels), and which are mirrored."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    is_mirrored: Tensor
    is_upside_down: Tensor


def whole(num: int, side: int) -> Cuts:
    """Return the cuts that are whole images."""
    zeros, sides = torch.zeros(num), torch.full((num,), float(side))
    never = torch.zeros(num, dtype=torch.bool)
    return Cuts(zeros, zeros, sides, sides, never, never)


def draw(num: int, side: int, *, upside_down: bool) -> Cuts:
    """Draw cuts by torch's generator of the CPU, as torchvision's RandomResizedCrop does.

    A cut has a share of 8 to 100 % of the image and a ratio of width to height of 3/4 to 4/3
    (log-uniform); of ten tries it is the first that fits into the image, or else the whole image.
    Half of the cuts are mirrored and, with ``upside_down``, half are turned upside down.
    Source: Szegedy et al., arXiv 1409.4842, section 6.
    """
    share = torch.empty(num, _TRIES).uniform_(*_SHARES)
    ratio = torch.empty(num, _TRIES).uniform_(*map(math.log, _RATIOS)).exp()
    widths = (side * (share * ratio).sqrt()).round()
    heights = (side * (share / ratio).sqrt()).round()
    fits = (widths <= side) & (heights <= side) & (widths >= 1) & (heights >= 1)
    first = fits.int().argmax(1, keepdim=True)
    found = fits.any(1)
    width = torch.where(found, widths.gather(1, first)[:, 0], side)
    height = torch.where(found, heights.gather(1, first)[:, 0], side)
    places, sides = torch.rand(2, num), torch.rand(2, num) < 0.5
    top = (places[0] * (side - height + 1)).floor()
    left = (places[1] * (side - width + 1)).floor()
    return Cuts(top, left, height, width, sides[0], sides[1] & upside_down)


def views(pixels: Tensor, cuts: Cuts, size: int) -> Tensor:
    """Scale cuts of images (uint8, n x side x side x channels) to ``size``: n x 3 x size x size.

    The result is fp32 from 0 to 1. Pixels count by triangles as wide as the scale, as they do
    with antialiasing in torch's ``interpolate`` (bilinear) and in Pillow.
    """
    side, device = pixels.shape[1], pixels.device
    rows = _weights(cuts.top, cuts.height, cuts.is_upside_down, side, size).to(device)
    columns = _weights(cuts.left, cuts.width, cuts.is_mirrored, side, size).to(device)
    with torch.autocast(device.type, enabled=False):
        scaled = torch.einsum("noh,nhwc->nowc", rows, pixels.float() / 255)
        found = torch.einsum("npw,nowc->ncop", columns, scaled)
    return found.expand(-1, 3, -1, -1)


def _weights(begin: Tensor, length: Tensor, is_flipped: Tensor, side: int, size: int) -> Tensor:
    """Return what each of ``side`` pixels adds to each of ``size``: n x size x side, rows of 1."""
    scale = (length / size)[:, None, None]
    middles = begin[:, None, None] + (torch.arange(size)[None, :, None] + 0.5) * scale
    pixels = torch.arange(side)[None, None, :] + 0.5
    inside = (pixels > begin[:, None, None]) & (pixels < (begin + length)[:, None, None])
    found = (1 - (pixels - middles).abs() / scale.clamp(min=1)).clamp(min=0) * inside
    found = found / found.sum(2, keepdim=True)
    return torch.where(is_flipped[:, None, None], found.flip(1), found)
