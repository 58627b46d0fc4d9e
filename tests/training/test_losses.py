from __future__ import annotations

import math

import pytest
import torch

from vs_cvrs.training.config import LossConfig
from vs_cvrs.training.losses import clip_log_error, low_rate_loss, pattern_energy, restoration_loss


def pair(mse: float) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.full((2, 3, 4, 8, 8), 0.5)
    return x, x + math.sqrt(mse)


def test_clip_log_error_is_psnr_up_to_a_factor() -> None:
    x, y = pair(1e-3)
    error = clip_log_error(x - y)
    assert error.shape == (2,)
    assert (-10 / math.log(10) * error).tolist() == pytest.approx([30.0, 30.0], abs=0.05)


def test_charbonnier_is_about_the_absolute_error() -> None:
    config = LossConfig(restoration="charbonnier")
    assert float(restoration_loss(*pair(0.04), [0, 2], config)) == pytest.approx(0.2, abs=1e-4)


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


def test_hidden_frames_can_count_more() -> None:
    x, y = pair(1e-3)
    losses = []
    for frame in (0, 1):
        one_wrong = x.clone()
        one_wrong[:, :, frame] = y[:, :, frame]
        config = LossConfig(hidden=3.0)
        losses.append(float(restoration_loss(one_wrong, x, [0, 2], config)))
    ratio = (math.exp(losses[1]) - 1e-5) / (math.exp(losses[0]) - 1e-5)
    assert ratio == pytest.approx(3.0, rel=0.01)


def test_patterns_are_told_from_noise() -> None:
    torch.manual_seed(0)
    noise = torch.randn(1, 3, 2, 64, 64)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    checkerboard = ((-1.0) ** (x + y)).expand(1, 3, 2, 64, 64)
    stripes = ((-1.0) ** x).expand(1, 3, 2, 64, 64)
    assert float(pattern_energy(noise)) == pytest.approx(1 / 25, rel=0.2)
    assert float(pattern_energy(checkerboard)) == pytest.approx(1.0)
    assert float(pattern_energy(stripes)) == pytest.approx(1.0)


def test_a_pattern_costs_more_than_noise() -> None:
    config = LossConfig(low_rate_pattern=4.0, low_rate_psnr=60.0)
    x = torch.full((1, 3, 2, 64, 64), 0.5)
    noise = 0.02 * torch.randn_like(x).sign()
    tint = torch.full_like(x, 0.02)
    assert (
        float(low_rate_loss(x + tint, x, config)) > float(low_rate_loss(x + noise, x, config)) + 1
    )


def test_what_changes_from_frame_to_frame_can_cost_more() -> None:
    torch.manual_seed(0)
    x = torch.full((1, 3, 4, 8, 8), 0.5)
    noise = 0.03 * torch.randn(1, 3, 1, 8, 8)
    staying = x + noise
    flickering = x + noise * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]
    plain, steady = LossConfig(), LossConfig(steady=0.5)
    assert float(restoration_loss(staying, x, [0, 2], plain)) == pytest.approx(
        float(restoration_loss(flickering, x, [0, 2], plain))
    )
    costs = [float(restoration_loss(y, x, [0, 2], steady)) for y in (staying, flickering)]
    assert costs[0] < costs[1] - 1.0
    single = restoration_loss(staying[:, :, :1], x[:, :, :1], [0], steady)
    assert math.isfinite(float(single))
