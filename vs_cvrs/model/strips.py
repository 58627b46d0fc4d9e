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
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = [
    "bounded_memory",
    "in_strips",
    "memory_limit",
    "part_of",
    "recomputed",
    "strip_size",
]

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


def memory_limit() -> int | None:
    """What `bounded_memory` allows here, for chains that find strips of their own."""
    return _LIMIT.get()


def in_strips(
    chain: Callable[..., Tensor],
    x: Tensor | tuple[Tensor, ...],
    radius: int,
    channels: int,
    multiple: int = 1,
) -> Tensor:
    """``chain(x)``, in strips where that needs more memory than `bounded_memory` allows.

    Args:
        chain: takes (B, C, T, H, W), pads with zeros, and sees at most ``radius`` pixels far in
            space. It may fold space into depth, or unfold it.
        x: its input, or several of the same height and width.
        radius: how far an input pixel reaches, the sum over the chain's convolutions.
        channels: values that the chain holds at once per position of ``x``, about.
        multiple: of the pixels that the chain folds into one; strips begin and end at multiples.

    Strips are `recomputed` for their gradients.
    """
    inputs = x if isinstance(x, tuple) else (x,)
    height, width = inputs[0].shape[-2:]
    rows, columns = strip_size(inputs[0], radius, channels, multiple)
    if rows >= height and columns >= width:
        return chain(*inputs)
    out: Tensor | None = None
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            bottom, right = min(top + rows, height), min(left + columns, width)
            where = slice(top, bottom), slice(left, right)
            part = recomputed(partial(part_of, chain, where, radius, multiple), *inputs)
            high, wide = part.shape[-2:]
            if out is None:
                size = height * high // bottom, width * wide // right
                out = torch.empty((*part.shape[:-2], *size), dtype=part.dtype, device=part.device)
            y, z = top * high // (bottom - top), left * wide // (right - left)
            out[..., y : y + high, z : z + wide] = part
    assert out is not None
    return out


def recomputed(chain: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """``chain(*inputs)``, computed once more for its gradients where `bounded_memory` bounds it.

    So its layers hold nothing for them in between.
    """
    limit = _LIMIT.get()
    if limit is None or not torch.is_grad_enabled():
        return chain(*inputs)

    def compute(*given: Any) -> Tensor:
        with bounded_memory(limit):  # another thread may compute it then
            return chain(*given)

    made = checkpoint(compute, *inputs, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(made, Tensor)
    return made


def part_of(
    chain: Callable[..., Tensor],
    where: tuple[slice, slice],
    radius: int,
    multiple: int,
    *inputs: Tensor,
) -> Tensor:
    """What `in_strips` computes for one strip: ``where`` gives its rows and columns in the inputs.

    They begin at multiples of ``multiple``, and end there or at the picture's end.
    """
    radius = -(-radius // multiple) * multiple
    sizes = inputs[0].shape[-2:]
    rows, columns = (
        slice(max(part.start - radius, 0), min(part.stop + radius, size))
        for part, size in zip(where, sizes, strict=True)
    )
    out = chain(*(x[..., rows, columns] for x in inputs))
    high, wide = (
        slice(
            (part.start - around.start) * size // (around.stop - around.start),
            (part.stop - around.start) * size // (around.stop - around.start),
        )
        for part, around, size in zip(where, (rows, columns), out.shape[-2:], strict=True)
    )
    return out[..., high, wide]


def strip_size(x: Tensor, radius: int, channels: int, multiple: int = 1) -> tuple[int, int]:
    """Rows and columns of equal strips within `bounded_memory`; see `in_strips`."""
    limit = _LIMIT.get()
    height, width = x.shape[-2:]
    if limit is None:
        return height, width
    area = limit // (channels * x[:, 0, :, 0, 0].numel() * x.element_size())
    rows = area // (width + 2 * radius) - 2 * radius
    columns = width
    if rows < min(height, _MIN_SIDE):
        side = max(_MIN_SIDE, math.isqrt(max(area, 0)) - 2 * radius)
        rows, columns = side, side
    rows, columns = min(rows, height), min(columns, width)
    rows = math.ceil(height / math.ceil(height / rows))
    columns = math.ceil(width / math.ceil(width / columns))
    return -(-rows // multiple) * multiple, -(-columns // multiple) * multiple
