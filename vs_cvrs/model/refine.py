"""Low-rate frames made better for one group, by the sender, who has the receiver's part too.

A model's networks know footage in general; the sender knows this group. It restores what it is
about to send, looks which way each sample of the low-rate frames would have to go for the restored
frames to come closer to the source, and goes there by small steps. Most of what that finds is in
the rounding to levels: which of two neighbours a sample takes costs the low-rate frames the same,
and what is hidden not at all. After "Content adaptive optimization for neural image compression"
(Campos et al., CVPR Workshops 2019), which does so with codes in place of frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vs_cvrs.model.base import CvrsModel, round_to_bits
from vs_cvrs.model.strips import bounded_memory, memory_limit

__all__ = ["MAX_REFINE", "refined"]

MAX_REFINE = 200
"""Steps; from some 40 on little is gained."""

_REACH = 0.08
"""The first step, as a share of the root of the mean squared error that there is to begin with. On
the validation scenes 0.05 and 0.1 come out within 0.1 dB."""

_LAST = 0.02
"""What is left of a step's reach at the end of the cosine that it falls by."""

_HOLD = 0.1
"""Weight of how far low-rate frames go away from what the model made of them."""

_FREE = 1.0 / 255.0**2
"""Mean square of what they may go away by nearly for nothing."""

_FLOOR = 1e-6
"""Mean squared error (60 dB) below which there is nothing to gain."""

_GRADIENTS = 6
"""How many times more memory a strip takes where its layers keep what their gradients need."""

_MEAN, _SQUARE = 0.8, 0.95
"""Shares of the past in Adam's running means (Kingma and Ba, ICLR 2015)."""


def refined(
    model: CvrsModel,
    high: Tensor,
    low: Tensor,
    steps: int,
    bits: int = 8,
    ends: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Low-rate frames from which the model restores more of a group's frames.

    Where no step comes closer, those that were given. May be called in inference mode.

    Args:
        model: one that `refines`, of parameters that were not made in inference mode.
        high: the frames that are to be restored, (1, 3, T, H, W) in 0..1.
        low: low-rate frames as `CvrsModel.encode` made them, (1, 3, t, h, w) in 0..1.
        steps: how often frames are restored, and gradients taken.
        bits: of the levels that low-rate frames are rounded to on their way.
        ends: black and white in ``high``; what is restored beyond them is cut off.
    """
    limit = memory_limit()
    bound = None if limit is None else max(1, limit // _GRADIENTS)
    with torch.inference_mode(False), bounded_memory(bound):
        # Tensors that were made in inference mode take no part in gradients; copies do.
        return _refined(model, high.clone(), low.clone(), steps, bits, ends)


def _refined(
    model: CvrsModel,
    high: Tensor,
    low: Tensor,
    steps: int,
    bits: int,
    ends: tuple[float, float],
) -> Tensor:
    size = (high.shape[2], high.shape[3], high.shape[4])
    lowest, highest = model.limits(round_to_bits(low, bits), size)
    best, least, reach = low, math.inf, 0.0
    x, mean, square = low, torch.zeros_like(low), torch.zeros_like(low)
    for step in range(steps + 1):
        with torch.set_grad_enabled(step < steps):
            x = x.detach().requires_grad_(step < steps)
            # The decoder sees rounded levels; gradients pass the rounding as if it were not there.
            received = x + (round_to_bits(x.detach(), bits) - x.detach())
            error = (model.decode(received, size).clamp(*ends) - high).square().mean()
            loss = (error + _FLOOR).log() + _HOLD * ((x - low).square().mean() + _FREE).log()
        found = float(error.detach())
        if found < least:
            best, least = x.detach(), found
        if step == 0:
            reach = _REACH * math.sqrt(found)
        if step == steps or not found > _FLOOR:
            break
        # As large as there are samples, or half precision would lose the smallest.
        (gradient,) = torch.autograd.grad(loss * low.numel(), x)
        mean = _MEAN * mean + (1.0 - _MEAN) * gradient
        square = _SQUARE * square + (1.0 - _SQUARE) * gradient.square()
        fall = _LAST + 0.5 * (1.0 + math.cos(math.pi * step / steps))
        way = (mean / (1.0 - _MEAN ** (step + 1))) / (
            (square / (1.0 - _SQUARE ** (step + 1))).sqrt() + torch.finfo(low.dtype).tiny
        )
        x = (x.detach() - reach * fall * way).clamp(lowest, highest)
    return best
