"""Stamped clips that lost their frame properties, whole and damaged."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from clips import clip_of, core, forget, frames_of, panned, pictures

from vs_cvrs.carrier.levels import to_levels
from vs_cvrs.timeline import Timeline

pytestmark = pytest.mark.usefixtures("one_thread")

Filter = Callable[..., Any]


def damage(clip: Any, frame: int) -> Any:
    """One level off in one sample of one frame."""

    def change(n: int, f: Any) -> Any:
        made = f.copy()
        if n == frame:
            np.asarray(made[1])[7, 9] ^= 1
        return made

    return core.std.ModifyFrame(clip, clip, change)


def intact(clip: Any) -> list[int]:
    return [frame.props["CVRSIntact"] for frame in clip.frames()]


def test_stamps_are_enough(down: Filter, up: Filter, warnings: list[str]) -> None:
    low = down(clip_of(pictures(13, 54, 40), (30000, 1001)), factor_num=2, scale=1.25)
    wanted = up(low)
    # A reader's idea of the rate, made out of times in milliseconds.
    read = core.std.AssumeFPS(forget(low), fpsnum=37000, fpsden=2469)
    restored = up(read)
    assert (restored.width, restored.height, restored.num_frames) == (54, 40, 13)
    assert restored.fps == Fraction(30000, 1001)
    np.testing.assert_array_equal(frames_of(restored), frames_of(wanted))
    assert intact(restored) == intact(wanted) == [1] * 13
    assert warnings == []


@pytest.mark.parametrize("form", [vs.RGB30, vs.RGB48, vs.RGBH, vs.RGBS])
def test_stamps_survive_deeper_formats(form: int, down: Filter, up: Filter) -> None:
    low = forget(down(clip_of(pictures(8)), fps=15))
    assert intact(up(core.resize.Point(low, format=form), strict=1)) == [1] * 8


def test_frames_are_stamped_the_same_in_any_order(down: Filter) -> None:
    source = clip_of(pictures(18))
    orders = [range(9), range(8, -1, -1), [4, 0, 8, 3, 7, 2, 6, 1, 5]]
    first, *others = [frames_of(down(source, fps=15), order) for order in orders]
    for other in others:
        np.testing.assert_array_equal(other, first)
    plain = frames_of(down(source, fps=15, stamp=0)).astype(int)
    assert np.abs(first - plain).max() == 1


def test_a_clip_that_was_cut_at_its_start(down: Filter, up: Filter, warnings: list[str]) -> None:
    low = forget(down(clip_of(pictures(24)), fps=15))
    whole = frames_of(up(low))
    on_grid = up(low[4:])
    np.testing.assert_array_equal(frames_of(on_grid), whole[8:])
    assert intact(on_grid) == [1] * 16
    assert warnings == []
    off_grid = up(low[3:])
    np.testing.assert_array_equal(frames_of(off_grid)[2:], whole[8:])
    assert intact(off_grid) == [0] * 2 + [1] * 16
    assert len(warnings) == 1
    assert "frames 0 to 0 of the clip are only a part of their group" in warnings[0]
    assert intact(up(low[:10])) == [1] * 16 + [0] * 4


def test_one_changed_sample(down: Filter, up: Filter, warnings: list[str]) -> None:
    low = damage(forget(down(clip_of(pictures(24)), fps=15)), 5)
    restored = up(low)
    assert intact(restored) == [1] * 8 + [0] * 8 + [1] * 8
    assert intact(restored) == [1] * 8 + [0] * 8 + [1] * 8
    assert len(warnings) == 1
    assert warnings[0].startswith(
        "Upsample: frames 4 to 7 of the clip are not as Downsample made them"
    )
    strict = up(low, strict=1)
    with pytest.raises(vs.Error, match="Upsample: frames 4 to 7 of the clip are not as Downsample"):
        strict.get_frame(12)
    assert intact(strict[:8]) == [1] * 8


def test_damage_is_seen_behind_frame_properties(down: Filter, up: Filter) -> None:
    low = damage(down(clip_of(pictures(16)), fps=15), 0)
    assert intact(up(low)) == [0] * 8 + [1] * 8


def low_order(clip: Any, order: Sequence[int]) -> Any:
    """Frames of a clip in another order."""
    return core.std.Splice([clip[n] for n in order])


def high_order(order: Sequence[int]) -> list[int]:
    return [n for low in order for n in (2 * low, 2 * low + 1)]


def test_frames_in_another_order_are_restored_in_that_order(
    down: Filter, up: Filter, warnings: list[str]
) -> None:
    low = forget(down(clip_of(pictures(48)), fps=15))
    whole = frames_of(up(low))
    for order in (
        [*range(5), 6, 5, *range(7, 24)],  # swapped inside a group
        [*range(12, 24), *range(12)],  # scenes the other way round
        [*range(8), *range(8), *range(4, 20)],  # repeated
        [*range(6), 5, *range(6, 24)],  # one doubled
        range(23, -1, -1),
        range(3, 24),
    ):
        restored = up(low_order(low, order))
        assert restored.num_frames == 2 * len(order)
        wanted = whole[high_order(order)]
        made = intact(restored)
        np.testing.assert_array_equal(frames_of(restored)[-40:], wanted[-40:])
        assert made[-40:] == [1] * 40
        shuffled = list(range(restored.num_frames))
        random.Random(len(order)).shuffle(shuffled)
        np.testing.assert_array_equal(
            frames_of(up(low_order(low, order)), shuffled), frames_of(restored)
        )
    assert len(warnings) == 2  # of the last clip, whose first group is not whole
    assert "frames 0 to 0 of the clip are only a part of their group" in warnings[0]


def test_a_cut_inside_a_group_costs_that_group_only(
    down: Filter, up: Filter, warnings: list[str]
) -> None:
    low = forget(down(clip_of(pictures(48)), fps=15))
    whole = frames_of(up(low))
    for begin in (0, 3, 5):
        for cut in (9, 11, 12):
            order = [*range(begin, cut), *range(17, 24)]
            restored = up(low_order(low, order))
            told = np.array(intact(restored), bool)
            kept = [n for n in order if set(range(n // 4 * 4, n // 4 * 4 + 4)) <= set(order)]
            assert told.tolist() == [n // 2 in kept for n in high_order(order)]
            np.testing.assert_array_equal(frames_of(restored)[told], whole[high_order(kept)])
    with pytest.raises(vs.Error, match="frames 8 to 8 of the clip are only a part of their group"):
        frames_of(up(low_order(low, [*range(9), *range(12, 24)]), strict=1))


def test_several_clips_of_one_model(down: Filter, up: Filter) -> None:
    first, second = pictures(23, seed=1), pictures(33, seed=2)
    lows = [forget(down(clip_of(frames), fps=15)) for frames in (first, second)]
    wanted = [frames_of(up(low)) for low in lows]
    both = up(lows[1] + lows[0] + lows[1][4:])
    assert intact(both) == [1] * both.num_frames
    # An odd clip's last low-rate frame stands for two, in a clip that goes on.
    parts = [wanted[1], wanted[1][-1:], wanted[0], wanted[0][-1:], wanted[1][8:]]
    made = frames_of(both)
    assert len(made) == 2 * (17 + 12 + 13)
    shown = np.concatenate([*parts, wanted[1][-1:]])
    np.testing.assert_array_equal(made, shown)


@pytest.mark.parametrize("cut", [5, 6, 7])
def test_clips_of_one_kind_joined_inside_a_group(cut: int, conv_model: Path) -> None:
    """Their stamps say the same but for the hash of the group: they make no group together."""

    def up(low: Any) -> Any:
        return core.cvrs.Upsample(low, fps=30, model=str(conv_model))

    lows = [
        forget(core.cvrs.Downsample(clip_of(pictures(32, seed=n)), fps=15, model=str(conv_model)))
        for n in range(2)
    ]
    joined = up(lows[0][:cut] + lows[1][cut:])
    assert intact(joined) == [1] * 8 + [0] * 8 + [1] * 16
    # Each part comes back as it does alone, with nothing of the other in it.
    alone = [frames_of(up(lows[0][:cut])), frames_of(up(lows[1][cut:]))]
    np.testing.assert_array_equal(frames_of(joined), np.concatenate(alone))
    # Frames that are the same in both make a group together.
    same = up(lows[0][:cut] + (lows[0] + lows[0])[cut:16])
    assert intact(same) == [1] * 32


@pytest.mark.parametrize("cut", range(1, 8))
def test_five_quarters_of_the_rate(cut: int, down: Filter, up: Filter) -> None:
    """Of a whole group every frame comes back wherever it stands; the axis is the clip's own."""
    low = forget(down(clip_of(pictures(40)), factor_num=5, factor_den=4))
    whole = frames_of(up(low))
    restored = up(low[:8] + low[8 + cut :])
    timeline = Timeline(Fraction(5, 4), 4)
    assert restored.num_frames == timeline.high_begin(32 - cut)
    made, told = frames_of(restored), intact(restored)
    np.testing.assert_array_equal(made[:10], whole[:10])
    later = -(-(8 + cut) // 4) * 4  # the first whole group behind the cut, at its frame
    begin = timeline.high_begin(later - cut)
    np.testing.assert_array_equal(made[begin:], whole[later * 5 // 4 :])
    assert told == [1] * 10 + [0] * (begin - 10) + [1] * (restored.num_frames - begin)


def test_nothing_is_read_where_the_arguments_say_all(down: Filter, up: Filter) -> None:
    low = forget(down(clip_of(pictures(24)), fps=15))
    read: list[int] = []

    def note(n: int, f: Any) -> Any:
        read.append(n)
        return f

    noted = core.std.ModifyFrame(low, low, note)
    size = {"width": 32, "height": 24}
    for arguments in ({"factor_num": 2, "scale": 1}, {"fps": 30} | size, {"fps_num": 30} | size):
        restored = up(noted, **arguments)
        assert read == []
    wanted = frames_of(up(low))
    np.testing.assert_array_equal(frames_of(restored), wanted)
    assert intact(up(low[5:], **size, fps=30)) == [0] * 6 + [1] * 8
    up(noted, fps=30)
    assert read[-1] == 0


def test_source_frames_behind_a_cut_are_made_about_once(down: Filter, up: Filter) -> None:
    low = forget(down(clip_of(pictures(160)), fps=15))
    read: list[int] = []

    def note(n: int, f: Any) -> Any:
        read.append(n)
        return f

    cut = low[:9] + low[11:]
    restored = up(core.std.ModifyFrame(cut, cut, note), fps=30)
    for frame in restored.frames(prefetch=1, backlog=1, close=True):
        frame.close()
    assert set(read) == set(range(78))
    assert len(read) - len(set(read)) <= 3 * 4


def test_frames_of_another_grouping_say_what_to_give(
    down: Filter, up: Filter, warnings: list[str]
) -> None:
    low = forget(down(clip_of(pictures(32)), fps=15, gop=8))
    assert intact(up(low, fps=30, scale=1)) == [0] * 32
    assert "were made with a time factor of 2 and gop 8, not 2 and 4" in warnings[0]
    assert intact(up(low, fps=30, scale=1, gop=8)) == [1] * 32
    assert intact(up(low, fps=30, width=64, height=24, gop=8)) == [0] * 32
    assert "were made from frames of 32x24, not 64x24" in warnings[1]


def test_a_file_whose_first_frame_is_damaged(down: Filter, up: Filter) -> None:
    low = damage(forget(down(clip_of(pictures(24)), fps=15)), 0)
    assert intact(up(low, fps=30)) == [0] * 8 + [1] * 16


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("form", [vs.RGB24, vs.RGB30, vs.RGBS])
def test_where_nothing_is_hidden_frames_are_interpolated(
    scale: int, form: int, conv_model: Path, warnings: list[str]
) -> None:
    high = panned(16, 96 * scale, 64 * scale)
    plain = clip_of(high[::2], (15, 1))
    if scale > 1:
        plain = core.resize.Bicubic(plain, 96, 64)
    plain = core.resize.Point(plain, format=form)
    restored = core.cvrs.Upsample(plain, fps=30, scale=scale, model=str(conv_model))
    assert intact(restored) == [0] * 16
    assert {frame.props["CVRSSource"] for frame in restored.frames()} == {"interpolated"}
    assert len(warnings) == 1
    shown = frames_of(core.resize.Point(restored, format=vs.RGB24)).astype(int)
    if scale == 1:
        np.testing.assert_array_equal(shown[::2], high[::2])
    else:
        assert np.abs(shown[::2] - high[::2]).mean() < 1
    np.testing.assert_array_equal(shown[15], shown[14])  # there is nothing behind the last one
    for n in range(1, 15, 2):
        repeated = np.abs(high[n].astype(int) - high[n - 1]).mean()
        assert np.abs(shown[n] - high[n]).mean() < 0.6 * repeated


def test_nothing_is_interpolated_across_a_cut(conv_model: Path) -> None:
    high = panned(8, 96, 64)
    plain = clip_of(np.concatenate((high[0:4:2], high[4:8:2])), (15, 1))

    def told(n: int, f: Any) -> Any:
        made = f.copy()
        made.props["_SceneChangePrev"] = int(n == 2)
        return made

    for clip, same in ((plain, False), (core.std.ModifyFrame(plain, plain, told), True)):
        shown = frames_of(core.cvrs.Upsample(clip, fps=30, model=str(conv_model)))
        assert np.array_equal(shown[3], shown[2]) == same
        assert not np.array_equal(shown[1], shown[0])


def test_padding_is_cut_off_frames_that_hide_nothing(conv_model: Path) -> None:
    source = pictures(4, 32, 24)
    restored = core.cvrs.Upsample(
        clip_of(source, (15, 1)), fps=30, width=30, height=21, model=str(conv_model)
    )
    np.testing.assert_array_equal(frames_of(restored)[::2], source[:, :, :21, :30])


def test_nothing_is_judged_where_nothing_was_stamped(down: Filter, up: Filter) -> None:
    low = down(clip_of(pictures(8)), fps=15, stamp=0)
    wanted = frames_of(up(low))
    for restored in (up(low), up(forget(low), fps=30, stamp=0)):
        assert "CVRSIntact" not in restored.get_frame(0).props
        np.testing.assert_array_equal(frames_of(restored), wanted)
    with pytest.raises(vs.Error, match="strict=1 needs frames with stamps"):
        up(low, strict=1)


def test_small_frames_have_no_stamps(down: Filter, up: Filter) -> None:
    low = down(clip_of(pictures(4, 8, 8)), fps=15)
    assert low.get_frame(0).props.CVRSStamped == 0
    for clip in (low, forget(low)):
        restored = up(clip, fps=30)
        assert "CVRSIntact" not in restored.get_frame(0).props
        with pytest.raises(vs.Error, match="Upsample: strict=1 needs frames with stamps"):
            up(clip, fps=30, strict=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fps": 60}, "target rate is given as 60, but the clip's stamps state 30"),
        ({"factor_num": 3}, "time factor is given as 3, but the clip's stamps state 2"),
        ({"width": 36}, "width is given as 36, but the clip's stamps state 32"),
        ({"length": 20}, "length is given as 20, but the clip's stamps state 16"),
        ({"phase": 1}, "phase is given as 1, but the clip's stamps state 0"),
        ({"gop": 2}, "gop is given as 2, but the clip's stamps state 4"),
    ],
)
def test_arguments_that_contradict_the_stamps(
    arguments: dict[str, Any], message: str, down: Filter, up: Filter
) -> None:
    low = forget(down(clip_of(pictures(16)), fps=15))
    with pytest.raises(vs.Error, match=f"Upsample: .*{message}"):
        up(low, **arguments)


def test_a_rate_that_a_reader_rounded_is_no_contradiction(down: Filter, up: Filter) -> None:
    clip = clip_of(pictures(16), (88000, 2933))  # 30 fps as a reader states it
    restored = up(forget(down(clip, factor_num=2)), fps=30)
    assert restored.num_frames == 16
    assert restored.fps == Fraction(88000, 2933)


def test_other_models_and_other_clips(down: Filter, up: Filter, conv_model: Path) -> None:
    low = forget(down(clip_of(pictures(16)), fps=15))
    with pytest.raises(vs.Error, match=r"made with model \([0-9a-f]{16}\), but the model here is"):
        core.cvrs.Upsample(low, model=str(conv_model))
    other = forget(core.cvrs.Downsample(clip_of(pictures(16)), fps=15, model=str(conv_model)))
    joined = up(low + other)
    assert intact(joined) == [1] * 16 + [0] * 16


@pytest.mark.parametrize("top", [1023, 65535])
def test_levels(top: int) -> None:
    eight = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, 1)
    deep = np.round(eight / 255 * top).astype(np.uint16)
    np.testing.assert_array_equal(to_levels(deep, top), eight)
    np.testing.assert_array_equal(to_levels((eight / 255).astype(np.float16), 1.0), eight)
    outside = np.full((1, 3, 16, 16), 1.5, np.float16)
    assert to_levels(outside, 1.0).max() == 255
    ten = np.round(eight / 255 * 1023).astype(np.uint16)
    np.testing.assert_array_equal(to_levels(deep, top, 10), ten)
