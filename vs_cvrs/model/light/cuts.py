"""Where a cut lies among frames that are left out: found by the sender, and told in residues.

A receiver that has the frames shown on both sides of a cut finds most cuts, and cannot find out
which of the frames between are of which scene. The sender knows. It adds to the residues of a
low-rate frame one of some patterns of +1 and -1, far below what residues are worth by themselves,
and far above what thousands of them have in common with a pattern by chance: spread-spectrum
watermarking (Cox et al., "Secure spread spectrum watermarking for multimedia", IEEE Transactions on
Image Processing 6(12), 1997).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vs_cvrs.model.light.hashing import mixed

__all__ = ["Cut", "can_tell", "heard", "jumps", "pattern"]

_LEAST_TOLD = 1300
"""Pixels of low-rate frames that tell: of fewer, residues may look like a pattern."""

_AMPLITUDE = 0.6
"""Levels of a pattern. More than half a level, or it would be lost where residues are whole."""

_HEARD = 0.25
"""Levels of a pattern from which on it is taken to be there."""

_TELLING = 3000
"""Pixels of larger frames that tell; the others keep their residues as they are."""

_TILE = 64
"""Pixels after which a pattern repeats, across and down."""

_COLOURS = 3

_JUMP, _OVER_OTHERS = 12.0 / 255.0, 3.0
"""A cut lies where one frame differs from the next by so much (mean of samples of 0..1), and by so
many times what any others differ by."""


class Cut(NamedTuple):
    """What is known of a cut between two frames shown.

    Attributes:
        there: whether one is, (B,).
        behind: how many of the frames left out are behind it, (B,).
    """

    there: Tensor
    behind: Tensor


def can_tell(size: tuple[int, int]) -> bool:
    """Whether low-rate frames of this height and width can tell of cuts."""
    return size[0] * size[1] >= _LEAST_TOLD


def jumps(frames: Tensor) -> Tensor:
    """Whether one of the frames (B, 3, n, H, W) differs from the next as no other does, (B,)."""
    apart = (frames[:, :, 1:] - frames[:, :, :-1]).abs().mean(dim=(1, 3, 4))
    if apart.shape[1] < 2:
        return torch.zeros_like(apart[:, 0], dtype=torch.bool)
    most, next_to_most = apart.topk(2, dim=1).values.unbind(1)
    return (most > _JUMP) & (most > _OVER_OTHERS * next_to_most)


def pattern(cut: Cut, count: int, size: tuple[int, int]) -> Tensor:
    """What residues tell of a cut by, (B, 3, 1, h, w) in levels; zeros where there is none.

    Args:
        cut: where it is.
        count: frames that are left out.
        size: height and width of the low-rate frames.
    """
    tile = _tile(count + 1, cut.there.device)
    which = cut.behind[:, None] == torch.arange(count + 1, device=tile.device)
    which = which & cut.there[:, None]
    chosen = _AMPLITUDE * torch.einsum("bn,nchw->bchw", which.to(tile), tile)
    over = chosen.repeat(1, 1, *(-(-n // _TILE) for n in size))
    return (over[:, :, : size[0], : size[1]] * _telling(*size, tile.device)[0]).unsqueeze(2)


def heard(residues: Tensor, count: int) -> Cut:
    """What residues (B, 3, h, w), in levels, tell of a cut among ``count`` frames left out."""
    h, w = residues.shape[-2:]
    telling, samples = _telling(h, w, residues.device)
    down, across = -(-h // _TILE), -(-w // _TILE)
    filled = F.pad(residues * telling, (0, across * _TILE - w, 0, down * _TILE - h))
    sums = filled.reshape(-1, _COLOURS, down, _TILE, across, _TILE).sum(dim=(2, 4))
    likeness = torch.einsum("bchw,nchw->bn", sums, _tile(count + 1, residues.device)) / samples
    most, behind = likeness.max(dim=1)
    there = most > _HEARD
    return Cut(there, torch.where(there, behind, 0))


@functools.lru_cache(maxsize=8)
def _telling(height: int, width: int, device: torch.device) -> tuple[Tensor, int]:
    """The pixels of a frame that tell, (h, w) of 1 and 0, and how many samples they have."""
    with torch.inference_mode(False):  # whoever asks first: training may come next
        share = min(1.0, _TELLING / (height * width))
        telling = (mixed((height, width)) < share * 2**32).float()
        return telling.to(device), _COLOURS * int(telling.sum())


@functools.lru_cache(maxsize=8)
def _tile(count: int, device: torch.device) -> Tensor:
    """So many patterns that have nothing to do with one another, (count, 3, h, w)."""
    with torch.inference_mode(False):
        random = mixed((count, _COLOURS, _TILE, _TILE))
        return (2.0 * (random >> 7 & 1) - 1.0).float().to(device)
