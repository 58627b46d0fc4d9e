from __future__ import annotations

import pytest
import torch

from vs_cvrs.model.paper.blocks import depth_to_space, space_to_depth
from vs_cvrs.model.paper.imsm import Imsm

pytestmark = pytest.mark.usefixtures("one_thread")


def _imsm(block_num: int, strength: float) -> Imsm:
    """With last convolutions that do something, unlike those of a new one."""
    torch.manual_seed(3)
    imsm = Imsm(block_num)
    for name, parameter in imsm.named_parameters():
        if ".conv5." in name:
            torch.nn.init.normal_(parameter, std=strength)
    return imsm


def test_folding_has_the_order_of_pixel_unshuffle() -> None:
    x = torch.randn(2, 3, 5, 8, 12)
    frames = torch.nn.functional.pixel_unshuffle(x.transpose(1, 2), 2).transpose(1, 2)
    assert torch.equal(space_to_depth(x), frames)
    assert torch.equal(depth_to_space(space_to_depth(x)), x)


def test_folding_needs_even_sizes() -> None:
    with pytest.raises(ValueError, match="even"):
        space_to_depth(torch.zeros(1, 3, 2, 4, 5))


def test_starts_as_the_identity() -> None:
    x = torch.rand(1, 3, 4, 8, 12)
    assert torch.equal(Imsm(2)(x), x)


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(1, 4, 4), (4, 16, 24), (3, 20, 4), (7, 8, 36)]
)
def test_inverse_undoes_forward(frames: int, height: int, width: int) -> None:
    imsm = _imsm(2, 0.05)
    x = torch.rand(2, 3, frames, height, width)
    with torch.inference_mode():
        y = imsm(x)
        assert (y - x).abs().max() > 0.05
        assert (imsm.inverse(y) - x).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(6, 8), (8, 6), (9, 8)])
def test_other_sizes_are_refused(size: tuple[int, int]) -> None:
    for work in (Imsm(1), Imsm(1).inverse):
        with pytest.raises(ValueError, match="multiples of 4"):
            work(torch.zeros(1, 3, 2, *size))
