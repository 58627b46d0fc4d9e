"""Frames between low-rate frames that hide nothing, by motion alone, without a network."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vs_cvrs.model.motion import dense_motion, moved, of_two_scenes, ways
from vs_cvrs.timeline import Timeline, low_size

__all__ = ["fitted", "interpolated"]

_WINDOW = 9
"""Pixels over which it is seen whether motion was found."""

_LITTLE = 1e-6
"""Squares of differences, 0..1, that are nothing."""


def interpolated(low: Tensor, size: tuple[int, int, int], behind: int = 0) -> Tensor:
    """Low-rate frames, and between them what stands half-way and the like.

    Frames are evenly spread in time. Each that no low-rate frame shows is the mean of its two
    neighbours, moved to where it lies (`vs_cvrs.model.motion`), the nearer one for more. The
    less alike they are after that, the more they are mixed as they are instead. Between two scenes
    the earlier frame is repeated, and behind the last one that.

    Args:
        low: (B, 3, t, h, w) in 0..1.
        size: (T, H, W) of what is wanted, T at least t. Low-rate frames whose sides only were
            rounded up are cut, others resized (bicubic).
        behind: low-rate frames that lie behind all that is wanted.

    Returns:
        (B, 3, T, H, W) in 0..1.
    """
    there, (high, height, width) = low.shape[2], size
    count = there - behind
    shown = [fitted(low[:, :, n], height, width).clamp(0.0, 1.0) for n in range(there)]
    between = Timeline(Fraction(high, count), count).neighbours(0, there, np.arange(high))
    made = [
        _between(shown[before], shown[after], share) if share else shown[before]
        for before, after, share in zip(
            between.before.tolist(), between.after.tolist(), between.share.tolist(), strict=True
        )
    ]
    return torch.stack(made, dim=2)


def fitted(frame: Tensor, height: int, width: int) -> Tensor:
    """A low-rate frame (B, 3, h, w) at another size, not clamped: bicubic.

    What only rounds a size up to a multiple of 4 is cut.
    """
    if tuple(low_size(n, Fraction(1)) for n in (height, width)) == frame.shape[-2:]:
        return frame[..., :height, :width]
    return F.interpolate(frame, (height, width), mode="bicubic", align_corners=False)


def _between(before: Tensor, after: Tensor, share: float) -> Tensor:
    """A frame ``share`` of the way from one (B, 3, H, W) to the other."""
    places = before.new_full((len(before),), share, dtype=torch.float32)
    motion = dense_motion(before, after, places)
    back, on = ways(places)
    earlier, later = (
        moved(frames, way * motion, sharp=True) for frames, way in ((before, -back), (after, on))
    )
    apart, still_apart = _unlike(before, after), _unlike(earlier, later)
    found = apart / (apart + still_apart + _LITTLE)
    mixed = torch.lerp(before, after, share)
    made = torch.lerp(mixed, torch.lerp(earlier, later, share).to(mixed.dtype), found)
    two = of_two_scenes(before, after, earlier, later)[:, None, None, None]
    return torch.where(two, before, made.clamp(0.0, 1.0))


def _unlike(first: Tensor, second: Tensor) -> Tensor:
    """The mean square of the difference around each pixel, (B, 1, H, W)."""
    square = (first - second).square().mean(dim=1, keepdim=True)
    return F.avg_pool2d(square, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False)
