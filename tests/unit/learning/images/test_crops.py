"""What a model sees: torch's own interpolation is the reference, cut by cut."""

import torch
from torch.nn.functional import interpolate

from scaling_fl.learning.images.crops import draw, views, whole

PIXELS = torch.randint(
    0, 256, (300, 28, 28, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)


def scaled(images: torch.Tensor, size: int) -> torch.Tensor:
    planes = images.permute(0, 3, 1, 2).float() / 255
    return interpolate(planes, size=(size, size), mode="bilinear", antialias=True)


def test_a_whole_image_is_scaled_as_torch_scales_it() -> None:
    for size in (7, 20, 28, 56):
        found = views(PIXELS[:4], whole(4, 28), size)
        torch.testing.assert_close(found, scaled(PIXELS[:4], size), atol=1e-6, rtol=0)


def test_a_cut_is_scaled_as_torch_scales_it_alone() -> None:
    torch.manual_seed(0)
    cuts = draw(20, 28, upside_down=True)
    found = views(PIXELS[:20], cuts, 24)
    for number in range(20):
        top, left, height, width = (int(each[number]) for each in cuts[:4])
        alone = scaled(PIXELS[number : number + 1, top : top + height, left : left + width], 24)[0]
        alone = alone.flip(2) if cuts.is_mirrored[number] else alone
        alone = alone.flip(1) if cuts.is_upside_down[number] else alone
        torch.testing.assert_close(found[number], alone, atol=2e-6, rtol=0)


def test_grey_images_have_three_equal_channels() -> None:
    found = views(PIXELS[:2, :, :, :1], whole(2, 28), 14)
    assert found.shape == (2, 3, 14, 14)
    assert torch.equal(found[:, 0], found[:, 2])


def test_cuts_are_of_the_sizes_and_ratios_of_flasc() -> None:
    torch.manual_seed(0)
    cuts = draw(20_000, 256, upside_down=False)
    share, ratio = cuts.height * cuts.width / 256**2, cuts.width / cuts.height
    assert 0.078 < share.min() < 0.09
    assert share.max() <= 1
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.35
    assert ((cuts.top >= 0) & (cuts.top + cuts.height <= 256)).all()
    assert ((cuts.left >= 0) & (cuts.left + cuts.width <= 256)).all()
    assert abs(cuts.is_mirrored.float().mean() - 0.5) < 0.02
    assert not cuts.is_upside_down.any()
    # Shares are uniform where every ratio fits into the image (below 3/4).
    small = share[share < 0.7]
    assert abs(small.mean() - 0.39) < 0.01
