"""Motion between low-rate frames, searched for without learning, and frames moved along it.

Bilateral motion (Choi et al., "Motion-compensated frame interpolation using bilateral motion
estimation and adaptive overlapped block motion compensation", IEEE TCSVT 2007): for each pixel of a
frame between two, how far it moves from the earlier one to the later one, along a straight line. So
every pixel of the frame between has one motion: no holes.

It is searched for from coarse to fine: at each size, around what the coarser one found, by the
absolute difference of luma over a window, with a price on motion that differs from its
surroundings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vs_cvrs.model.constants import constant

__all__ = [
    "FINEST",
    "bilateral_motion",
    "coarse_luma",
    "dense",
    "dense_motion",
    "moved",
    "of_two_scenes",
    "searched",
    "ways",
]

FINEST = 4
"""Motion is found for blocks of this many pixels squared."""

_LUMA = (0.2126, 0.7152, 0.0722)
_LEAST_SIDE = 8  # of the coarsest size
_WINDOW = 5
_AROUND = 5
_PRICE = 0.01
"""Levels of 0..1 per pixel of motion that differs from its surroundings."""

_STEPS = (0.5, 0.25)
"""Pixels, at each size, by which motion changes at once."""

_APART, _STILL_APART = 12.0 / 255.0, 0.375
"""Two frames are of two scenes where they differ in luma by so much after motion, and by such a
share of what they differ before it. Of 109 pairs of frames of 14 clips (448x256) none differed by
more than 8.8 levels after motion; of two different clips they did by 14 to 60, and by 0.42 to 0.72
of what they did before."""

_OFFSETS = tuple((x, y) for y in (-1, 0, 1) for x in (-1, 0, 1))
_STAYS = _OFFSETS.index((0, 0))
_ROW = 3


def bilateral_motion(before: Tensor, after: Tensor, places: Tensor | None = None) -> Tensor:
    """How pixels of frames between two pairs of frames move: half the way between those.

    Args:
        before: (N, 3, H, W), RGB in 0..1.
        after: likewise.
        places: (N,), where each frame lies between the two, 0 to 1; None: half-way.

    Returns:
        (N, 2, H/4, W/4), rounded up: x and y in pixels of the frames. What is at p in the frame
        between stands at p - back * motion before it and at p + on * motion after it, see `ways`.
    """
    first, second = coarse_luma(torch.cat((before, after))).chunk(2)
    return searched(first, second, places)


def coarse_luma(frames: Tensor) -> Tensor:
    """What the search looks at of frames (N, 3, H, W): (N, 1, H/4, W/4), rounded up."""
    with torch.no_grad(), torch.autocast(frames.device.type, enabled=False):
        return _halved(_halved(_luma(frames.float())))


def searched(before: Tensor, after: Tensor, places: Tensor | None = None) -> Tensor:
    """`bilateral_motion` of frames of which `coarse_luma` is known. Frames are searched at once.

    A search is some thousands of small steps: a GPU that is told of each by itself waits for that.
    """
    with torch.no_grad(), torch.autocast(before.device.type, enabled=False):
        pairs = [torch.cat((before, after))]
        while min(pairs[-1].shape[-2:]) >= 2 * _LEAST_SIDE:
            pairs.append(_halved(pairs[-1]))
        n, _, h, w = pairs[-1].shape
        motion = before.new_zeros(n // 2, 2, h, w, dtype=torch.float32)
        for pair in reversed(pairs):
            size = pair.shape[-2:]
            if motion.shape[-2:] != size:
                motion = 2.0 * F.interpolate(motion, size, mode="bilinear", align_corners=False)
            first, second = pair.chunk(2)
            for step in _STEPS:
                motion = _step(first, second, motion, step, ways(places))
        return motion * FINEST


def dense_motion(before: Tensor, after: Tensor, places: Tensor | None = None) -> Tensor:
    """`bilateral_motion` for every pixel: (N, 2, H, W)."""
    return dense(bilateral_motion(before, after, places), before.shape[-2:])


def dense(motion: Tensor, size: Sequence[int]) -> Tensor:
    """Motion of blocks for every pixel of frames of this height and width."""
    return F.interpolate(motion, tuple(size), mode="bilinear", align_corners=False)


def ways(places: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
    """Back to the frame before and on to the one after, (N, 1, 1, 1), in halves of the way."""
    if places is None:
        return 1.0, 1.0
    back = 2.0 * places.view(-1, 1, 1, 1)
    return back, 2.0 - back


def of_two_scenes(before: Tensor, after: Tensor, earlier: Tensor, later: Tensor) -> Tensor:
    """Whether frames (N, 3, H, W) are of two scenes: (N,).

    Args:
        before: the earlier one as it is.
        after: the later one as it is.
        earlier: the earlier one moved to where it should be like ``later``.
        later: the later one, moved.
    """
    left = _difference(earlier, later)
    return (left > _APART) & (left > _STILL_APART * _difference(before, after))


def moved(frames: Tensor, motion: Tensor, sharp: bool = False) -> Tensor:
    """Frames (N, C, H, W) with at each pixel what stands ``motion`` (N, 2, H, W) pixels from it.

    Args:
        frames: in 0..1.
        motion: x and y.
        sharp: sample by cubics, not linearly: better where frames are clean, worse where noisy.
    """
    with torch.autocast(frames.device.type, enabled=False):
        return _sampled(frames.float(), _places(motion), "bicubic" if sharp else "bilinear")


def _places(motion: Tensor) -> Tensor:
    """Where pixels stand that moved, (N, H, W, 2), from -1 to 1 across the picture."""
    h, w = motion.shape[-2:]
    y = torch.arange(h, dtype=torch.float32, device=motion.device)[:, None] + 0.5
    x = torch.arange(w, dtype=torch.float32, device=motion.device) + 0.5
    return torch.stack(
        ((x + motion[:, 0]) * (2.0 / w) - 1.0, (y + motion[:, 1]) * (2.0 / h) - 1.0), dim=-1
    )


def _sampled(frames: Tensor, places: Tensor, mode: str = "bilinear") -> Tensor:
    return F.grid_sample(frames, places, mode=mode, padding_mode="border", align_corners=False)


def _difference(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference in luma of frames (N, 3, H, W) and others: (N,)."""
    return (_luma(first.float()) - _luma(second.float())).abs().mean(dim=(1, 2, 3))


def _luma(frames: Tensor) -> Tensor:
    weights = constant(_LUMA, frames.dtype, frames.device).view(1, 3, 1, 1)
    return (frames * weights).sum(dim=1, keepdim=True)


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True)


def _step(
    first: Tensor,
    second: Tensor,
    motion: Tensor,
    step: float,
    way: tuple[Tensor | float, Tensor | float],
) -> Tensor:
    """Motion after one step of the search at one size."""
    back, on = way
    offsets = constant(_OFFSETS, motion.dtype, motion.device)
    surroundings = _mean(motion, _AROUND)
    earlier, later = _places(-back * motion), _places(on * motion)
    steps = step * offsets
    h, w = motion.shape[-2:]
    further = steps * constant((2.0 / w, 2.0 / h), motion.dtype, motion.device)
    costs = []
    # Rows of three at once: one by one they are more to be told of, all nine take more memory.
    for row, shifts in zip(torch.split(steps, _ROW), torch.split(further, _ROW), strict=True):
        shift = shifts[:, None, None]
        ahead, behind = (
            _sampled(frame, (places[:, None] + _each(way) * shift).flatten(1, 2))
            for frame, places, way in ((first, earlier, -back), (second, later, on))
        )
        difference = (ahead - behind).abs().view(-1, _ROW, h, w)
        tried = motion[:, None] + row[:, :, None, None]
        strange = (tried - surroundings[:, None]).square().sum(dim=2).sqrt()
        costs.append(_mean(difference, _WINDOW) + _PRICE * strange)
    cost = torch.cat(costs, dim=1)
    best, least = torch.zeros_like(cost[:, 0], dtype=torch.int64), cost[:, 0]
    for index in range(1, len(_OFFSETS)):  # a third of what argmin over channels takes
        less = cost[:, index] < least
        best = best.masked_fill_(less, index)
        least = torch.minimum(least, cost[:, index])
    change = offsets[best].permute(0, 3, 1, 2)
    # Where staying is best, the lowest point of a parabola through the costs on either side.
    stays = cost[:, _STAYS]
    finer = torch.stack(
        [_lowest(cost[:, _STAYS - stride], stays, cost[:, _STAYS + stride]) for stride in (1, 3)],
        dim=1,
    )
    change = torch.where((best == _STAYS)[:, None], finer, change)
    return _median(_median(motion + step * change))


def _each(way: Tensor | float) -> Tensor | float:
    """A factor of each frame for several of it, (N, 1, 1, 1, 1)."""
    return way[:, None] if isinstance(way, Tensor) else way


def _lowest(before: Tensor, here: Tensor, after: Tensor) -> Tensor:
    bend = before + after - 2.0 * here
    return torch.where(bend > 1e-6, (before - after) / (2.0 * bend).clamp_min(2e-6), 0.0).clamp(
        -0.5, 0.5
    )


def _mean(x: Tensor, window: int) -> Tensor:
    return F.avg_pool2d(F.pad(x, (window // 2,) * 4, mode="replicate"), window, 1)


def _median(x: Tensor) -> Tensor:
    """Of 3x3 pixels.

    Columns of three are sorted once for all that they are part of. The median of nine is that of
    the largest low one, the middle one of the middle ones, and the smallest high one.
    """
    h, w = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    rows = [padded[..., y : y + h, :] for y in range(3)]
    low = torch.minimum(torch.minimum(rows[0], rows[1]), rows[2])
    high = torch.maximum(torch.maximum(rows[0], rows[1]), rows[2])
    lows, middles, highs = (
        [column[..., n : n + w] for n in range(3)] for column in (low, _middle(*rows), high)
    )
    return _middle(
        torch.maximum(torch.maximum(lows[0], lows[1]), lows[2]),
        _middle(*middles),
        torch.minimum(torch.minimum(highs[0], highs[1]), highs[2]),
    )


def _middle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))
