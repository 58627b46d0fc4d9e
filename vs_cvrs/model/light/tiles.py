"""Features computed tile by tile, so that what is worked on stays in a CPU's cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Tile",
    "features_like",
    "tiles",
    "worth_tiling",
]

_TILE = 8 << 20
"""Bytes of features in a tile on a CPU: a few of them stay in the cache, and the allocator gives
their memory to the next ones without asking the system for it."""


def worth_tiling(x: Tensor, channels: int) -> bool:
    """Whether to compute features of ``x``'s size tile by tile.

    GPUs have no use for it, gradients need it all, and what is small is faster at once.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return False
    return x[:, 0].numel() * channels * x.element_size() > 3 * _TILE


class Tile(NamedTuple):
    """Rows of a frame; with those around them, and where they lie among these."""

    frame: int
    rows: slice
    around: slice
    inner: slice


def tiles(x: Tensor, radius: int) -> Iterator[Tile]:
    """Equal tiles of features, of an even number of rows, with ``radius`` rows around them."""
    n, c, h, w = x.shape
    count = -(-c * h * w * x.element_size() // _TILE)
    step = -(-h // count)
    step += step % 2
    for frame in range(n):
        for start in range(0, h, step):
            stop = min(start + step, h)
            first = max(start - radius, 0)
            inner = slice(start - first, stop - first)
            yield Tile(frame, slice(start, stop), slice(first, min(stop + radius, h)), inner)


def features_like(x: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """Uninitialised features of another number of channels and type, channels last."""
    n, _, h, w = x.shape
    made = torch.empty(n, channels, h, w, dtype=dtype, device=x.device)
    return made.contiguous(memory_format=torch.channels_last)
