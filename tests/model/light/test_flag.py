from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from vs_cvrs.carrier import stamp
from vs_cvrs.carrier.stamp import Stamp
from vs_cvrs.model.base import round_to_8bit, round_to_bits
from vs_cvrs.model.light import flag

SIZE = (64, 64)
"""The smallest that can tell."""


def pictures(count: int, size: tuple[int, int] = SIZE) -> torch.Tensor:
    torch.manual_seed(4)
    return torch.rand(1, 3, count, *size)


def test_small_frames_cannot_tell() -> None:
    assert flag.can_flag(SIZE)
    assert not flag.can_flag((60, 64))


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("size", [SIZE, (270, 480), (132, 100)])
@pytest.mark.parametrize("bit", [False, True])
def test_each_frame_tells(bits: int, size: tuple[int, int], bit: bool) -> None:
    low = pictures(3, size)
    told = flag.flagged(low, bit)
    sent = round_to_bits(told, bits)
    wanted = pytest.approx(-1.0 if bit else 1.0, abs=0.02)
    for frame in torch.split(sent, 1, dim=2):
        assert flag.agreement(frame) == wanted
        assert flag.agreement(round_to_8bit(frame)) == wanted
    # Few samples change, and by some levels at most.
    change = (255.0 * (told - low)).abs()
    assert 0 < (change > 0).sum() <= 3 * 128
    assert change.max() <= 8.0  # at white; 4 elsewhere


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("bit", [False, True])
def test_flat_frames_tell_too(level: float, bit: bool) -> None:
    low = torch.full((1, 3, 2, *SIZE), level)
    assert abs(flag.agreement(low)) < 0.3
    sent = flag.flagged(low, bit)
    assert flag.agreement(round_to_8bit(sent)) == pytest.approx(-1.0 if bit else 1.0)
    assert 0.0 <= float(sent.min()) <= float(sent.max()) <= 1.0


def test_frames_that_were_not_told_to_do_not() -> None:
    torch.manual_seed(5)
    found = [flag.agreement(torch.randint(0, 256, (1, 3, 4, *SIZE)) / 255.0) for _ in range(100)]
    assert max(map(abs, found)) < 0.12
    ramp = torch.linspace(0.0, 1.0, 64).expand(1, 3, 1, *SIZE)
    assert abs(flag.agreement(ramp)) < 0.3
    assert abs(flag.agreement(ramp.flip(-1))) < 0.3


@pytest.mark.parametrize("bit", [False, True])
def test_stamps_leave_it_there(bit: bool) -> None:
    low = round_to_8bit(flag.flagged(pictures(2), bit))
    frames = (255.0 * low[0].transpose(0, 1)).round().byte().numpy().copy()
    before = frames.copy()
    clip = Stamp(Fraction(2), None, 64, 64, 8, 2, 0, "0" * 16)
    stamp.write(frames, clip)
    assert (frames != before).sum() > 100
    arrived = torch.from_numpy(frames.astype(np.float32) / 255.0).transpose(0, 1)[None]
    for frame in torch.split(arrived, 1, dim=2):
        assert flag.agreement(frame) * (-1.0 if bit else 1.0) > 0.95


@pytest.mark.parametrize("levels", [0.5, 1.0, 1.5, 2.5])
@pytest.mark.parametrize("bit", [False, True])
def test_noise_takes_away_what_it_should(levels: float, bit: bool) -> None:
    low = flag.flagged(0.1 + 0.8 * pictures(3, (270, 480)), bit)
    noisy = round_to_8bit(low + levels / 255.0 * torch.randn(low.shape))
    left = math.exp(-2.0 * (math.pi / 8.0) ** 2 * (levels**2 + 1.0 / 12.0))
    assert abs(flag.agreement(noisy)) == pytest.approx(left, abs=0.12)
    assert levels > 2.0 or (flag.agreement(noisy) < 0.0) is bit


def test_samples_that_tell_stay_where_others_may_go() -> None:
    low = round_to_8bit(flag.flagged(pictures(2), True))
    lowest, highest = flag.pinned(low, torch.zeros_like(low), torch.ones_like(low))
    stays = lowest == highest
    assert stays.sum() == 2 * 128
    assert torch.equal(lowest[stays], low[stays])
    moved = torch.where(torch.rand(low.shape) < 0.5, lowest, highest)
    assert flag.agreement(moved) == pytest.approx(-1.0)
