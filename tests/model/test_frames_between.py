"""Frames between low-rate frames that hide nothing, by motion alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from clips import panned

from vs_cvrs.model.interpolation import interpolated
from vs_cvrs.timeline import Timeline

pytestmark = pytest.mark.usefixtures("one_thread")


def panning(count: int, width: int = 128, height: int = 96) -> torch.Tensor:
    frames = torch.from_numpy(panned(count, width, height)).float() / 255.0
    return frames.transpose(0, 1)[None]


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().mean())


@pytest.mark.parametrize("ratio", [Fraction(2), Fraction(5, 4), Fraction(3)])
def test_frames_stand_where_they_belong(ratio: Fraction) -> None:
    timeline = Timeline(ratio, 4)
    high = panning(timeline.high_begin(4))
    shown = [timeline.high_begin(n) for n in range(4)]
    made = interpolated(high[:, :, shown], (high.shape[2], 96, 128))
    assert torch.equal(made[:, :, shown], high[:, :, shown])
    for n in set(range(shown[-1])) - set(shown):
        before = max(k for k in shown if k < n)
        after = min(k for k in shown if k > n)
        share = (n - before) / (after - before)
        blended = torch.lerp(high[:, :, before], high[:, :, after], share)
        assert error(made[:, :, n], high[:, :, n]) < 0.8 * error(blended, high[:, :, n])


def test_behind_the_last_one_it_is_repeated_unless_the_next_is_known() -> None:
    high = panning(10)
    low = high[:, :, ::2]
    alone = interpolated(low[:, :, :4], (8, 96, 128))
    assert torch.equal(alone[:, :, 7], alone[:, :, 6])
    known = interpolated(low, (8, 96, 128), behind=1)
    assert torch.equal(known[:, :, :7], alone[:, :, :7])
    assert error(known[:, :, 7], high[:, :, 7]) < 0.5 * error(alone[:, :, 7], high[:, :, 7])


def test_nothing_is_mixed_across_a_cut() -> None:
    low = panning(4)
    rng = np.random.default_rng(0)
    other = torch.from_numpy(rng.random((1, 3, 2, 12, 16), np.float32))
    low[:, :, 2:] = other.repeat_interleave(8, 3).repeat_interleave(8, 4)
    made = interpolated(low, (8, 96, 128))
    assert torch.equal(made[:, :, 3], low[:, :, 1])
    assert not torch.equal(made[:, :, 1], low[:, :, 0])


def test_what_stands_still_stays() -> None:
    low = panning(1).expand(-1, -1, 3, -1, -1)
    assert error(interpolated(low, (6, 96, 128)), low.repeat_interleave(2, 2)) < 1e-6


def test_sizes() -> None:
    low = panning(2)
    assert torch.equal(interpolated(low, (3, 95, 126))[:, :, 0], low[:, :, 0, :95, :126])
    larger = interpolated(low, (4, 190, 255))
    assert larger.shape == (1, 3, 4, 190, 255)
    assert 0.0 <= float(larger.min()) <= float(larger.max()) <= 1.0
    for side in (4, 8):  # smaller than what motion is searched for on
        assert interpolated(torch.rand(1, 3, 2, side, side), (4, side, side)).shape[2] == 4
