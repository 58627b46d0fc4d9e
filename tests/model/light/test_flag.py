from __future__ import annotations

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
def test_each_frame_tells(bits: int, size: tuple[int, int]) -> None:
    low = pictures(3, size)
    sent = round_to_bits(flag.flagged(low), bits)
    for frame in torch.split(sent, 1, dim=2):
        assert flag.is_flagged(frame)
        assert flag.is_flagged(round_to_8bit(frame))
    # Few samples change, and by a level at most.
    change = (255.0 * (flag.flagged(low) - low)).abs()
    assert 0 < (change > 0).sum() <= 3 * 256
    assert change.max() <= 8.0  # at white; 4 elsewhere


def test_one_frame_is_enough() -> None:
    low = pictures(4)
    low[:, :, 2:3] = flag.flagged(low[:, :, 2:3])
    assert flag.is_flagged(low)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_flat_frames_tell_too(level: float) -> None:
    low = torch.full((1, 3, 2, *SIZE), level)
    assert not flag.is_flagged(low)
    sent = flag.flagged(low)
    assert flag.is_flagged(round_to_8bit(sent))
    assert 0.0 <= float(sent.min()) <= float(sent.max()) <= 1.0


def test_frames_that_were_not_told_to_do_not() -> None:
    torch.manual_seed(5)
    for _ in range(50):
        assert not flag.is_flagged(torch.randint(0, 256, (1, 3, 20, *SIZE)) / 255.0)
    ramp = torch.linspace(0.0, 1.0, 64).expand(1, 3, 1, *SIZE)
    assert not flag.is_flagged(ramp)
    assert not flag.is_flagged(ramp.flip(-1))


def test_stamps_leave_it_there() -> None:
    low = round_to_8bit(flag.flagged(pictures(2)))
    frames = (255.0 * low[0].transpose(0, 1)).round().byte().numpy().copy()
    before = frames.copy()
    clip = Stamp(Fraction(2), None, 64, 64, 8, 2, 0, "0" * 16)
    stamp.write(frames, clip)
    assert (frames != before).sum() > 100
    arrived = torch.from_numpy(frames.astype(np.float32) / 255.0).transpose(0, 1)[None]
    for frame in torch.split(arrived, 1, dim=2):
        assert flag.is_flagged(frame)


@pytest.mark.parametrize(("levels", "there"), [(0.5, True), (1.5, True), (4.0, False)])
def test_what_little_noise_leaves_much_takes_away(levels: float, there: bool) -> None:
    low = round_to_8bit(flag.flagged(pictures(3)))
    noise = levels / 255.0 * torch.randn(low.shape)
    for frame in torch.split(round_to_8bit(low + noise), 1, dim=2):
        assert flag.is_flagged(frame) is there


def test_flagged_samples_stay_where_others_may_go() -> None:
    low = round_to_8bit(flag.flagged(pictures(2)))
    lowest, highest = flag.pinned(low, torch.zeros_like(low), torch.ones_like(low))
    stays = lowest == highest
    assert stays.sum() == 2 * 256
    assert torch.equal(lowest[stays], low[stays])
    moved = torch.where(torch.rand(low.shape) < 0.5, lowest, highest)
    assert flag.is_flagged(moved)
