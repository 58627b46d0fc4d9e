"""One bit that a sender tells with each low-rate frame, and how well frames arrived.

Some samples, spread over the frame, are moved to the nearest level of 8 bits that leaves one
remainder or, for the other bit, the opposite one, as a list says that both ends have: quantisation
index modulation (Chen and Wornell, IEEE Transactions on Information Theory 47(4), 2001). How near
they arrive to what either bit would have left is the bit, and tells how much became of the frames
on their way.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from vs_cvrs.model.light.hashing import mixed

__all__ = ["agreement", "can_flag", "flagged", "pinned"]

_LEVELS = 255.0

_COUNT = 128
"""Samples of a frame that tell."""

_LEAST = 96 * _COUNT
"""Samples that a frame needs: of fewer, levels that were moved would be a loss."""

_PERIOD = 8
"""Remainders are of this, and 0 or half of it: samples may change by a quarter of it."""

_COLOURS = 3


def can_flag(size: tuple[int, int]) -> bool:
    """Whether low-rate frames of this height and width can tell anything."""
    return _COLOURS * size[0] * size[1] >= _LEAST


def flagged(low: Tensor, bit: bool) -> Tensor:
    """Low-rate frames (B, 3, t, h, w) in 0..1 that tell ``bit``, each."""
    places, remainders = _list(low.shape[-2], low.shape[-1], low.device)
    remainders = (remainders + _PERIOD // 2 * bit) % _PERIOD
    samples = low.transpose(1, 2).flatten(2)
    levels = _LEVELS * samples[..., places]
    told = _PERIOD * ((levels - remainders) / _PERIOD).round() + remainders
    told = told - _PERIOD * (told > _LEVELS).to(told) + _PERIOD * (told < 0).to(told)
    samples = samples.index_copy(2, places, told / _LEVELS)
    b, c, t, h, w = low.shape
    return samples.reshape(b, t, c, h, w).transpose(1, 2)


def agreement(low: Tensor) -> float:
    """What low-rate frames (1, 3, t, h, w) tell: below 0 the bit is set. Waits for the frames.

    It is 1 or -1 where they are as they were sent; noise of s levels leaves exp(-0.31 s^2) of it.
    Frames that tell nothing have a few hundredths by chance.
    """
    places, remainders = _list(low.shape[-2], low.shape[-1], low.device)
    levels = _LEVELS * low.detach().transpose(1, 2).flatten(2)[..., places]
    return float((2.0 * math.pi / _PERIOD * (levels - remainders)).cos().mean())


def pinned(low: Tensor, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of what samples may become, but those that tell stay as they are in ``low``."""
    places, _ = _list(low.shape[-2], low.shape[-1], low.device)
    stays = torch.zeros(_COLOURS * low.shape[-2] * low.shape[-1], device=low.device)
    stays[places] = 1.0
    here = stays.view(_COLOURS, 1, *low.shape[-2:]) > 0
    return torch.where(here, low, lowest), torch.where(here, low, highest)


@functools.lru_cache(maxsize=8)
def _list(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the samples are, one in each of as many equal stretches, and their remainders."""
    with torch.inference_mode(False):  # whoever asks first: training may come next
        total = _COLOURS * height * width
        edges = torch.arange(_COUNT + 1) * total // _COUNT
        random = mixed((_COUNT, 1))[:, 0]
        places = edges[:-1] + random % edges.diff()
        return places.to(device), (_PERIOD / 2 * (random >> 20 & 1)).to(device)
