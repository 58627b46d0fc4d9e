"""Low-rate frames of ten bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from clips import clip_of, core, forget, frames_of, pictures

Filter = Callable[..., Any]


def deep(count: int, form: int = vs.RGB30) -> Any:
    """A clip of levels that 8 bits do not have."""
    clip = core.resize.Point(clip_of(pictures(count)), format=vs.RGBS)
    return core.resize.Point(core.std.Expr(clip, "x 0.87 * 0.01 +"), format=form)


def intact(clip: Any) -> set[int]:
    return {frame.props["CVRSIntact"] for frame in clip.frames()}


def test_ten_bits_there_and_back(down: Filter, up: Filter) -> None:
    source = deep(9)
    low = down(source, factor_num=1, bits=10)
    assert low.format.id == vs.RGB30
    assert low.get_frame(0).props["CVRSBits"] == 10
    restored = up(low)
    assert restored.format.id == vs.RGB30
    assert intact(restored) == {1}
    wanted = frames_of(source)
    # Only stamps move a level; with 8 bits all but a few samples are off.
    difference = np.abs(frames_of(restored).astype(int) - wanted)
    assert difference.max() == 1
    assert difference.mean() < 0.15
    coarse = frames_of(up(core.resize.Point(down(source, factor_num=1), format=vs.RGB30)))
    assert np.abs(coarse.astype(int) - wanted).mean() > 0.5


@pytest.mark.parametrize("form", [vs.RGB30, vs.RGB48, vs.RGBH, vs.RGBS])
def test_what_a_stamp_says_of_the_depth(form: int, down: Filter, up: Filter) -> None:
    for bits in (8, 10):
        low = down(deep(8), fps=15, bits=bits)
        wanted = frames_of(core.resize.Point(up(core.resize.Point(low, format=form)), format=form))
        restored = up(forget(core.resize.Point(low, format=form)), strict=1)
        assert intact(restored) == {1}
        np.testing.assert_array_equal(frames_of(restored), wanted)


def test_damage_to_ten_bits_is_seen(down: Filter, up: Filter) -> None:
    def change(n: int, f: Any) -> Any:
        made = f.copy()
        if n == 5:
            np.asarray(made[2])[3, 4] ^= 1
        return made

    low = forget(down(deep(24), fps=15, bits=10))
    restored = up(core.std.ModifyFrame(low, low, change))
    assert [f.props["CVRSIntact"] for f in restored.frames()] == [1] * 8 + [0] * 8 + [1] * 8


def test_frames_of_ten_bits_that_hide_nothing(conv_model: Path) -> None:
    """They are shown in the bits that they have."""
    source = deep(8)
    restored = core.cvrs.Upsample(source, fps=60, bits=10, model=str(conv_model))
    assert intact(restored) == {0}
    np.testing.assert_array_equal(frames_of(restored)[::2], frames_of(source))


@pytest.mark.parametrize(
    ("form", "made"),
    [
        (vs.RGB24, vs.RGB24),
        (vs.RGB30, vs.RGB30),
        (vs.RGB48, vs.RGB30),
        (vs.RGBH, vs.RGB30),
        (vs.RGBS, vs.RGB30),
    ],
)
def test_bits_that_go_by_the_source(form: int, made: int, down: Filter) -> None:
    source = deep(4, form)
    assert down(source, fps=15, bits=0).format.id == made
    assert down(source, fps=15).format.id == vs.RGB24


def test_bits_that_do_not_fit(down: Filter, up: Filter) -> None:
    source = deep(8)
    for bits in (9, 12, -1):
        with pytest.raises(vs.Error, match=f"Downsample: bits must be .*, got {bits}"):
            down(source, fps=15, bits=bits)
    low = down(source, fps=15, bits=10)
    with pytest.raises(vs.Error, match=r"Upsample: bits is given as 8, but the clip's .* state 10"):
        up(low, bits=8)
    rounded = core.resize.Point(low, format=vs.RGB24)
    with pytest.raises(vs.Error, match="made with 10 bits, and the clip has 8: read it as RGB30"):
        up(rounded)
    broken = core.std.SetFrameProps(low, CVRSBits=9)
    with pytest.raises(vs.Error, match="frame property CVRSBits must be 8 or 10, got 9"):
        up(broken)
