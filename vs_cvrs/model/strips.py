"""Convolution chains in spatial strips, so that what they hold in between stays small.

A strip is computed together with as many pixels around it as the chain can see, and only its own
pixels are kept: no pixel comes out differently, and there are no seams. At the picture's edges the
chain pads as it always does.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["bounded_memory", "in_strips"]

_LIMIT: ContextVar[int | None] = ContextVar("cvrs_strip_limit", default=None)

_MIN_SIDE = 32
"""Strips are at least this high and wide: below, they would mostly recompute their surroundings."""


@contextlib.contextmanager
def bounded_memory(limit: int | None) -> Iterator[None]:
    """Let chains in this context hold about ``limit`` bytes in between; None: as much as they do.

    Does not count a chain's input and output, and holds for the calling thread alone.

    Raises:
        ValueError: ``limit`` is not positive.
    """
    if limit is not None and limit <= 0:
        raise ValueError(f"the memory limit must be positive, got {limit} bytes")
    token = _LIMIT.set(limit)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def in_strips(
    chain: Callable[[Tensor], Tensor], x: Tensor, radius: int, channels: int, multiple: int = 1
) -> Tensor:
    """``chain(x)``, in strips where that needs more memory than `bounded_memory` allows.

    Args:
        chain: keeps height and width of (B, C, T, H, W), pads with zeros, and sees at most
            ``radius`` pixels far in space.
        x: its input.
        radius: how far an input pixel reaches, the sum over the chain's convolutions.
        channels: values that the chain holds at once per position of ``x``, about.
        multiple: of the pixels that the chain folds into one; strips begin and end at multiples.
    """
    limit = _LIMIT.get()
    height, width = x.shape[-2:]
    if limit is None:
        return chain(x)
    rows, columns = _strip_size(
        height, width, radius, limit // (channels * x[:, 0, :, 0, 0].numel() * x.element_size())
    )
    radius, rows, columns = (-(-n // multiple) * multiple for n in (radius, rows, columns))
    if rows >= height and columns >= width:
        return chain(x)
    out: Tensor | None = None
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            (y0, y1, high), (x0, x1, wide) = (
                _surrounded(top, rows, height, radius),
                _surrounded(left, columns, width, radius),
            )
            part = chain(x[..., y0:y1, x0:x1])[..., high, wide]
            if out is None:
                out = torch.empty(
                    (*part.shape[:-2], height, width), dtype=part.dtype, device=part.device
                )
            out[..., top : top + rows, left : left + columns] = part
    assert out is not None
    return out


def _strip_size(height: int, width: int, radius: int, area: int) -> tuple[int, int]:
    """Rows and columns of equal strips that cover, with their surroundings, about ``area``."""
    rows = area // (width + 2 * radius) - 2 * radius
    columns = width
    if rows < min(height, _MIN_SIDE):
        side = max(_MIN_SIDE, math.isqrt(max(area, 0)) - 2 * radius)
        rows, columns = side, side
    rows, columns = min(rows, height), min(columns, width)
    return math.ceil(height / math.ceil(height / rows)), math.ceil(
        width / math.ceil(width / columns)
    )


def _surrounded(start: int, length: int, size: int, radius: int) -> tuple[int, int, slice]:
    """A strip with its surroundings on one axis: start, stop, and where the strip lies in it."""
    stop = min(start + length, size)
    first, last = max(start - radius, 0), min(stop + radius, size)
    return first, last, slice(start - first, stop - first)
