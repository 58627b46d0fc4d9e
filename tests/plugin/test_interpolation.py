"""Groups that hide nothing: the short ways give what the general one gives."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from vs_cvrs.carrier.levels import white_of
from vs_cvrs.carrier.stamp import Mode
from vs_cvrs.plugin.frames import FrameType, fit
from vs_cvrs.plugin.interpolation import interpolate, reduce
from vs_cvrs.timeline import Timeline


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("ratio", [Fraction(2), Fraction(5, 2), Fraction(4)])
@pytest.mark.parametrize("mode", [Mode.INTERPOLATED, Mode.EARLIER, Mode.LATER])
def test_frames_between_others(bits: int, ratio: Fraction, mode: Mode) -> None:
    dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
    kind, low_kind = FrameType(dtype, bits, 18, 30), FrameType(dtype, bits, 20, 32)
    rng = np.random.default_rng(bits)
    source = rng.integers(0, 2**bits, (4, 3, 18, 30)).astype(dtype)
    low = np.stack([reduce(frame, kind, low_kind) for frame in source])
    np.testing.assert_array_equal(low[:, :, :18, :30], source)
    np.testing.assert_array_equal(
        low[:, :, 17:, 29:], low[:, :, 17:18, 29:30].repeat(3, 2).repeat(3, 3)
    )

    timeline = Timeline(ratio, 4)
    high = np.arange(timeline.high_begin(4))
    between = timeline.neighbours(0, 4, high)
    made = np.empty((len(high), 3, 18, 30), dtype)
    interpolate(low, between, mode, made, kind)
    levels = [fit(frame, (18, 30)) for frame in low]
    for n, (before, after, share) in enumerate(
        zip(between.before, between.after, between.share, strict=True)
    ):
        at = {Mode.EARLIER: 0.0, Mode.LATER: 1.0}.get(mode, float(share))
        a, b = levels[before], levels[after]
        wanted = a if at == 0.0 else b if at == 1.0 else a + np.float32(at) * (b - a)
        whole = np.round(wanted * np.float32(white_of(low) / 255.0))
        np.testing.assert_array_equal(made[n], whole.astype(dtype))
