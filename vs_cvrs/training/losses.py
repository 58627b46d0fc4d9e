"""Training losses. Tensors are (batch, 3, frames, height, width), RGB in 0..1."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from vs_cvrs.training.config import LossConfig

__all__ = ["charbonnier", "clip_log_error", "low_rate_loss", "pattern_energy", "restoration_loss"]

_CHARBONNIER_EPSILON = 1e-3
_PATTERN_WINDOW = 5
_ERROR_FLOOR = 1e-5
"""Mean squared error (50 dB) below which a clip stops pulling: still clips must not lead."""


def charbonnier(x: Tensor, target: Tensor) -> Tensor:
    """Mean of sqrt((x - target)^2 + eps^2), a smooth L1."""
    return torch.sqrt((x - target).square() + _CHARBONNIER_EPSILON**2).mean()


def pattern_energy(difference: Tensor) -> Tensor:
    """Energy of what repeats every second pixel in (batch, 3, frames, height, width); (batch,).

    The mean square of local means, taken over 5x5 pixels of the same row and column parity: all of
    a flat tint, of a checkerboard and of stripes, and 1/25 of white noise.
    """
    b, c, t, h, w = difference.shape
    parities = functional.pixel_unshuffle(difference.transpose(1, 2).reshape(b * t, c, h, w), 2)
    local = functional.avg_pool2d(parities, _PATTERN_WINDOW, stride=1)
    return local.square().reshape(b, -1).mean(dim=1)


def clip_log_error(difference: Tensor, pattern: float = 0.0) -> Tensor:
    """ln(mean squared error) of each clip, shape (batch,), plus ``pattern`` x `pattern_energy`.

    Its mean is the clip PSNR up to a factor. Against a plain mean of errors it keeps clips with
    large motion from drowning the others, and within a clip the worst frames pull hardest, which
    brings odd and even frames together.
    """
    error = difference.square().mean(dim=(1, 2, 3, 4))
    if pattern:
        error = error + pattern * pattern_energy(difference)
    return torch.log(error + _ERROR_FLOOR)


def restoration_loss(
    restored: Tensor, high: Tensor, shown: list[int], config: LossConfig
) -> Tensor:
    """Distance between restored and original high-rate frames.

    ``shown`` are the indices of the frames that low-rate frames show.
    """
    if config.restoration == "charbonnier":
        return charbonnier(restored, high)
    weight = high.new_full((high.shape[2], 1, 1), config.hidden)
    weight[shown] = 1.0
    weight = (weight / weight.mean()).sqrt()
    error = restored - high
    loss = clip_log_error(error * weight).mean()
    if config.steady and error.shape[2] > 1:
        loss = loss + config.steady * clip_log_error(error[:, :, 1:] - error[:, :, :-1]).mean()
    return loss


def low_rate_loss(low: Tensor, shown: Tensor, config: LossConfig, progress: float = 1.0) -> Tensor:
    """Distance between low-rate frames and the frames they stand for, weighted.

    In the "psnr" form the pull is full up to ``low_rate_psnr`` and small beyond: fidelity that
    nobody can see is better spent on hidden motion. ``progress`` is the share of the stage that is
    done, 0 to 1.
    """
    if config.restoration == "charbonnier":
        return config.low_rate * charbonnier(low, shown)
    error = clip_log_error(low - shown, config.low_rate_pattern)
    ramp = min(1.0, progress / config.low_rate_ramp) if config.low_rate_ramp else 1.0
    goal_db = config.low_rate_psnr_start + ramp * (
        config.low_rate_psnr - config.low_rate_psnr_start
    )
    goal = -goal_db * math.log(10.0) / 10.0
    below = (error - goal).clamp_min(0.0)
    return config.low_rate * (below + config.low_rate_beyond * error).mean()
