from __future__ import annotations

import math

import pytest
import torch

from vs_cvrs.training.config import LossConfig
from vs_cvrs.training.losses import clip_log_error, low_rate_loss, restoration_loss


def pair(mse: float) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.full((2, 3, 4, 8, 8), 0.5)
    return x, x + math.sqrt(mse)


def test_clip_log_error_is_psnr_up_to_a_factor() -> None:
    error = clip_log_error(*pair(1e-3))
    assert error.shape == (2,)
    assert (-10 / math.log(10) * error).tolist() == pytest.approx([30.0, 30.0], abs=0.05)


def test_charbonnier_is_about_the_absolute_error() -> None:
    config = LossConfig(restoration="charbonnier")
    assert float(restoration_loss(*pair(0.04), config)) == pytest.approx(0.2, abs=1e-4)


def test_low_rate_frames_pull_only_up_to_the_goal() -> None:
    config = LossConfig(low_rate=1.0, low_rate_beyond=0.0, low_rate_psnr=40.0)
    assert float(low_rate_loss(*pair(1e-5), config)) == 0.0
    assert float(low_rate_loss(*pair(1e-3), config)) == pytest.approx(math.log(10), rel=0.02)


def test_the_goal_rises_with_progress() -> None:
    config = LossConfig(
        low_rate_beyond=0.0, low_rate_psnr_start=28.0, low_rate_psnr=40.0, low_rate_ramp=0.5
    )
    x = pair(10**-3.2)  # 32 dB: good enough at first, not in the end
    losses = [float(low_rate_loss(*x, config, progress)) for progress in (0.0, 0.25, 0.5, 1.0)]
    assert losses[0] == 0.0
    assert 0.0 < losses[1] < losses[2] == losses[3]
