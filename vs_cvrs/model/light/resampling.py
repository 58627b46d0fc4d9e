"""Bicubic resampling of frames, and its inverse.

Frames are (batch, 3, frames, height, width).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["filled", "resampled", "restored"]

_BLOCK = 64
_MARGIN = 32
"""Pixels that are solved for together, and those around them: by how much an inverse reaches."""

_RIDGE = 1e-4
"""Keeps the inverse of a reduction from amplifying what is hardly there."""


def filled(low: Tensor, high: Sequence[int], multiple: int) -> list[Tensor]:
    """What networks are told of how much of ``multiple`` times a low size is there, on each axis.

    Between a half and all of it as a rule: brought to about -1 to 1. A channel like one of the low
    frames for either axis; ``high`` are the height and width of what is there.
    """
    shares = (n / (multiple * m) for n, m in zip(high, low.shape[-2:], strict=True))
    return [torch.full_like(low[:, :1], 4.0 * min(1.0, share) - 3.0) for share in shares]


def resampled(x: Tensor, height: int, width: int) -> Tensor:
    """Frames at another size, bicubic with antialiasing, in float32."""
    if x.shape[-2:] == (height, width):
        return x
    b, c, t, h, w = x.shape
    flat = x.transpose(1, 2).reshape(b * t, c, h, w)
    made = F.interpolate(flat, (height, width), mode="bicubic", antialias=True)
    return made.reshape(b, t, c, height, width).transpose(1, 2)


def restored(x: Tensor, height: int, width: int) -> Tensor:
    """The frames of a size of which `resampled` makes ``x``, by least squares.

    Enlarged frames come back exactly. Of reduced ones the inverse is regularised.
    """
    x = _along(x, height, -2)
    return _along(x, width, -1)


def _along(x: Tensor, size: int, axis: int) -> Tensor:
    if x.shape[axis] == size:
        return x
    parts = []
    for block in _inverse(size, x.shape[axis], x.device):
        matrix = block.matrix
        seen = x.narrow(axis, block.begin, matrix.shape[1])
        parts.append(matrix @ seen if axis == -2 else seen @ matrix.T)
    return torch.cat(parts, dim=axis)


class _Block(NamedTuple):
    """Some pixels from those of the other size from ``begin`` on: (pixels, pixels seen)."""

    begin: int
    matrix: Tensor


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def _inverse(size: int, other: int, device: torch.device) -> tuple[_Block, ...]:
    """What undoes bicubic resampling from ``size`` to ``other`` pixels, block by block."""
    eye = torch.eye(size)[None, None]
    forward = F.interpolate(eye, (other, size), mode="bicubic", antialias=True)[0, 0].double()
    index = torch.arange(size)
    first = torch.where(forward != 0, index, size).amin(dim=1)
    last = torch.where(forward != 0, index, -1).amax(dim=1)
    margin = _MARGIN * max(1, -(-size // other))
    blocks = []
    for begin in range(0, size, _BLOCK):
        end = min(begin + _BLOCK, size)
        left, right = max(begin - margin, 0), min(end + margin, size)
        rows = torch.nonzero((first >= left) & (last < right))[:, 0]
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        part = forward[top:bottom, left:right]
        normal = part.T @ part + _RIDGE * torch.eye(right - left, dtype=torch.float64)
        matrix = torch.linalg.solve(normal, part.T)[begin - left : end - left]
        matrix = matrix / matrix.sum(dim=1, keepdim=True)  # flat areas keep their level
        blocks.append(_Block(top, matrix.float().to(device)))
    return tuple(blocks)
