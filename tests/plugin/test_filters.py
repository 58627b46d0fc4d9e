"""The filters through VapourSynth, with a model whose results are known."""

from __future__ import annotations

import importlib.util
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import doubles
import numpy as np
import pytest
import torch
import vapoursynth as vs
from clips import array_of, clip_of, core, forget, frames_of, pictures

from vs_cvrs import __version__
from vs_cvrs.checkpoints import zoo
from vs_cvrs.timeline import Timeline

SetHook = Callable[[Callable[[str], None]], None]


@pytest.fixture
def down(nearest_model: Path) -> Callable[..., Any]:
    """Downsample without stamps, so that low-rate frames are to the last bit what is expected."""
    model = str(nearest_model)
    return lambda clip, **kw: core.cvrs.Downsample(clip, model=model, **({"stamp": 0} | kw))


@pytest.fixture
def up(nearest_model: Path) -> Callable[..., Any]:
    model = str(nearest_model)
    return lambda clip, **kw: core.cvrs.Upsample(clip, model=model, **({"stamp": 0} | kw))


def nearest(begin: int, end: int, count: int) -> list[int]:
    """Which of the frames begin..end-1 the nearest model takes for each of ``count``."""
    span = end - begin
    return [begin + int((i + 0.5) * span / count) for i in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 101])
def test_clips_of_any_length_at_twice_the_rate(
    count: int, down: Callable[..., Any], up: Callable[..., Any]
) -> None:
    source = pictures(count)
    low = down(clip_of(source), fps=15)
    assert (low.num_frames, low.fps, low.format.id) == ((count + 1) // 2, 15, vs.RGB24)
    padded = np.concatenate([source, source[-1:]])
    shown = padded[1::2][: low.num_frames]
    np.testing.assert_array_equal(frames_of(low), 255 - shown)
    wanted = np.repeat(shown, 2, axis=0)[:count]
    for restored in (up(low), up(forget(low), fps=30, length=count)):
        assert (restored.num_frames, restored.fps) == (count, 30)
        np.testing.assert_array_equal(frames_of(restored), wanted)


@pytest.mark.parametrize("ratio", ["5/4", "5/2", "1001/800", "1"])
@pytest.mark.parametrize("count", [1, 9, 40])
def test_groups_at_other_ratios(
    ratio: str, count: int, down: Callable[..., Any], up: Callable[..., Any]
) -> None:
    factor = Fraction(ratio)
    source = pictures(count)
    args = {"factor_num": factor.numerator, "factor_den": factor.denominator}
    low = down(clip_of(source), **args)
    timeline = Timeline(factor, low.get_frame(0).props.CVRSGroupLength)
    table = timeline.downsample_table(count)
    taken: list[int] = []
    for group in table.groups():
        end = group.source.stop + group.source_tail
        made = nearest(group.source.start, end, len(group.output))
        taken += [min(n, count - 1) for n in made]
    np.testing.assert_array_equal(frames_of(low), 255 - source[taken])
    restored = frames_of(up(low))
    assert len(restored) == count
    np.testing.assert_array_equal(frames_of(up(forget(low), length=count, **args)), restored)


@pytest.mark.parametrize(
    ("source", "arguments", "low"),
    [
        ((30, 1), {"fps": 15}, Fraction(15)),
        ((30, 1), {"fps_num": 24}, Fraction(24)),
        ((30000, 1001), {"fps": 14.985}, Fraction(15000, 1001)),
        ((30, 1), {"fps": 23.976}, Fraction(24000, 1001)),
        ((60, 1), {"factor_num": 5, "factor_den": 2}, Fraction(24)),
        ((60, 1), {"fps_num": 60000, "fps_den": 1001}, Fraction(60000, 1001)),
        ((25, 1), {}, Fraction(25)),
    ],
)
def test_rates(
    source: tuple[int, int],
    arguments: dict[str, Any],
    low: Fraction,
    down: Callable[..., Any],
    up: Callable[..., Any],
) -> None:
    made = down(clip_of(pictures(20), source), **arguments)
    assert made.fps == low
    props = made.get_frame(1).props
    assert Fraction(props["_DurationNum"], props["_DurationDen"]) == 1 / low
    assert up(made).fps == Fraction(*source)
    rate = Fraction(*source)
    again = up(forget(made), fps_num=rate.numerator, fps_den=rate.denominator)
    assert again.fps == rate


def test_unknown_rates_need_a_factor_and_scale_durations(
    down: Callable[..., Any], up: Callable[..., Any]
) -> None:
    clip = core.std.SetFrameProps(
        clip_of(pictures(9), (0, 1)), _DurationNum=[1001], _DurationDen=[30000]
    )
    low = down(clip, factor_num=2)
    assert low.fps == 0
    assert low.num_frames == 5
    props = low.get_frame(1).props
    assert Fraction(props["_DurationNum"], props["_DurationDen"]) == Fraction(1001, 15000)
    high = up(low)
    assert (high.fps, high.num_frames) == (0, 9)
    props = high.get_frame(1).props
    assert Fraction(props["_DurationNum"], props["_DurationDen"]) == Fraction(1001, 30000)


def with_durations(frames: int, durations: list[Fraction]) -> vs.VideoNode:
    """A clip of unknown rate whose frames last these times, in turn."""
    parts = [
        core.std.SetFrameProps(
            clip_of(pictures(frames), (0, 1))[n],
            _DurationNum=[durations[n % len(durations)].numerator],
            _DurationDen=[durations[n % len(durations)].denominator],
        )
        for n in range(frames)
    ]
    return core.std.Splice(parts)


def durations_of(clip: vs.VideoNode) -> list[Fraction]:
    return [
        Fraction(int(f.props["_DurationNum"]), int(f.props["_DurationDen"])) for f in clip.frames()
    ]


def test_frames_of_a_variable_rate_last_as_long_as_those_they_stand_for(
    down: Callable[..., Any], up: Callable[..., Any]
) -> None:
    tenth, fifth = Fraction(1, 10), Fraction(1, 5)
    low = down(with_durations(8, [tenth, fifth]), factor_num=2, gop=2)
    assert durations_of(low) == [tenth + fifth] * 4
    assert durations_of(up(low)) == [(tenth + fifth) / 2] * 8
    # By 3/2 every second low-rate frame stands for two frames: the whole is as long as it was.
    third = down(with_durations(9, [tenth, fifth, tenth]), factor_num=3, factor_den=2, gop=2)
    assert sum(durations_of(third)) == 3 * (tenth + fifth + tenth)


def test_a_cut_stays_beside_one_restored_frame(
    down: Callable[..., Any], up: Callable[..., Any]
) -> None:
    def marked(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        made = f.copy()
        made.props["_SceneChangePrev"], made.props["_SceneChangeNext"] = int(n == 4), int(n == 3)
        made.props["_AbsoluteTime"] = n / 30
        return made

    clip = clip_of(pictures(8), (30, 1))
    low = down(core.std.ModifyFrame(clip, clip, marked), factor_num=2)
    restored = [dict(f.props) for f in up(low).frames()]
    assert [n for n, p in enumerate(restored) if p.get("_SceneChangePrev")] == [4]
    assert [n for n, p in enumerate(restored) if "_AbsoluteTime" in p] == [0, 2, 4, 6]


def test_a_source_of_too_high_a_rate_is_refused_at_once(down: Callable[..., Any]) -> None:
    clip = core.std.AssumeFPS(clip_of(pictures(8), (30, 1)), fpsnum=8 * 10**9, fpsden=1)
    with pytest.raises(vs.Error, match="the clip's frame rate 8000000000 is beyond 2147483647"):
        down(clip, factor_num=4)


def test_frame_properties(down: Callable[..., Any], up: Callable[..., Any]) -> None:
    clip = core.std.SetFrameProps(clip_of(pictures(9)), _Range=1, Note="kept")
    low = down(clip, fps=15, gop=2)
    props = [dict(f.props) for f in low.frames()]
    assert [p["CVRSIndex"] for p in props] == [0, 1, 2, 3, 4]
    assert [p["SourceFrame"] for p in props] == [0, 2, 4, 6, 8]
    stated = {k: v for k, v in props[3].items() if k.startswith("CVRS")}
    assert len(stated.pop("CVRSChecksum")) == 16
    assert stated == {
        "CVRSVersion": 1,
        "CVRSFactorNum": 2,
        "CVRSFactorDen": 1,
        "CVRSRateNum": 30,
        "CVRSRateDen": 1,
        "CVRSWidth": 32,
        "CVRSHeight": 24,
        "CVRSLength": 9,
        "CVRSGroupLength": 2,
        "CVRSBits": 8,
        "CVRSIndex": 3,
        "CVRSModel": "nearest",
        "CVRSStamped": 0,
    }
    for p in [*props, *(dict(f.props) for f in up(low).frames())]:
        assert (p["_Matrix"], p["_Range"], p["Note"]) == (0, 1, "kept")
    restored = [dict(f.props) for f in up(low).frames()]
    assert [p["SourceFrame"] for p in restored] == [0, 0, 2, 2, 4, 4, 6, 6, 8]
    assert not [k for p in restored for k in p if k.startswith("CVRS")]


@pytest.mark.parametrize("fmt", [vs.RGB24, vs.RGB30, vs.RGB48, vs.RGBH, vs.RGBS])
def test_formats(fmt: int, down: Callable[..., Any], up: Callable[..., Any]) -> None:
    clip = core.resize.Point(clip_of(pictures(4)), format=fmt)
    low = down(clip, fps=15)
    np.testing.assert_array_equal(frames_of(low), 255 - pictures(4)[1::2])
    restored = up(core.resize.Point(low, format=fmt))
    assert restored.format.id == fmt
    back = core.resize.Point(restored, format=vs.RGB24)
    np.testing.assert_array_equal(frames_of(back), np.repeat(pictures(4)[1::2], 2, axis=0))


def test_sizes(down: Callable[..., Any], up: Callable[..., Any]) -> None:
    clip = clip_of(pictures(2, 54, 40))
    for arguments, size in (
        ({}, (56, 40)),
        ({"scale": 2}, (28, 20)),
        ({"scale": 3.5}, (16, 12)),
        ({"width": 12, "scale": 2}, (12, 20)),
        ({"width": 12, "height": 8}, (12, 8)),
    ):
        low = down(clip, factor_num=2, **arguments)
        assert (low.width, low.height) == size
        assert frames_of(low).shape == (1, 3, size[1], size[0])
        restored = up(low)
        assert (restored.width, restored.height) == (54, 40)
        assert frames_of(restored).shape == (2, 3, 40, 54)
    low = forget(down(clip, factor_num=2, scale=2))
    assert (up(low, factor_num=1).width, up(low, scale=2).height, up(low, scale=1.5).width) == (
        28,
        40,
        42,
    )
    assert frames_of(up(low, width=54, height=40, factor_num=2)).shape == (2, 3, 40, 54)


def test_gop_sets_the_group_length(down: Callable[..., Any], up: Callable[..., Any]) -> None:
    source = pictures(24)
    low = down(clip_of(source), factor_num=5, factor_den=4, gop=3)
    assert low.get_frame(0).props.CVRSGroupLength == 3
    whole = frames_of(up(low))
    args = {"factor_num": 5, "factor_den": 4, "length": 24}
    np.testing.assert_array_equal(frames_of(up(forget(low), gop=3, **args)), whole)
    assert (frames_of(up(forget(low), gop=4, **args)) != whole).any()


@pytest.mark.parametrize(("begin", "end"), [(4, 11), (8, 12), (3, 9), (5, 6), (10, 12)])
def test_trimmed_in_the_script(
    begin: int, end: int, down: Callable[..., Any], up: Callable[..., Any]
) -> None:
    source = pictures(23)
    low = down(clip_of(source), fps=15)
    part = low[begin:end]
    restored = up(part)
    assert restored.num_frames == min(2 * end, 23) - 2 * begin
    stated = frames_of(restored)
    explicit = up(forget(part), fps=30, phase=begin % 4, length=restored.num_frames)
    np.testing.assert_array_equal(frames_of(explicit), stated)
    inner_begin, inner_end = -(-begin // 4) * 4, end // 4 * 4
    if inner_begin < inner_end:  # whole groups come out as from the whole clip
        whole = frames_of(up(low))[2 * inner_begin : 2 * inner_end]
        offset = 2 * (inner_begin - begin)
        np.testing.assert_array_equal(stated[offset : offset + len(whole)], whole)


def test_cut_in_the_middle_is_noticed(down: Callable[..., Any], up: Callable[..., Any]) -> None:
    low = down(clip_of(pictures(24)), fps=15)
    restored = up(low[:5] + low[6:])
    assert len(frames_of(restored, range(8))) == 8
    with pytest.raises(
        vs.Error, match="Upsample: frame 5 of the clip has CVRSIndex 6 where 5 belongs"
    ):
        restored.get_frame(9)


def test_any_order_gives_the_same_frames(down: Callable[..., Any], up: Callable[..., Any]) -> None:
    source = clip_of(pictures(50))
    linear_low, linear_high = (
        frames_of(c) for c in (down(source, fps=15), up(down(source, fps=15)))
    )
    rng = random.Random(1)
    low = down(source, fps=15)
    high = up(low)
    for clip, wanted in ((low, linear_low), (high, linear_high)):
        order = list(range(clip.num_frames)) * 2
        rng.shuffle(order)
        np.testing.assert_array_equal(frames_of(clip, order), wanted)

    order = [rng.randrange(50) for _ in range(200)]
    with ThreadPoolExecutor(16) as pool:
        for n, frame in zip(order, pool.map(high.get_frame, order), strict=True):
            np.testing.assert_array_equal(array_of(frame), linear_high[n])


@pytest.mark.parametrize("gop", [4, 32])
@pytest.mark.parametrize("ahead", [1, 5, 80])
def test_groups_and_source_frames_are_made_once(
    gop: int, ahead: int, down: Callable[..., Any], up: Callable[..., Any], before_stage: SetHook
) -> None:
    stages: list[str] = []
    before_stage(stages.append)
    seen: list[int] = []
    blank = clip_of(pictures(1)).std.Loop(80)

    def note(n: int, f: Any) -> Any:
        seen.append(n)
        return f

    high = up(down(core.std.ModifyFrame(blank, blank, note), fps=15, gop=gop))
    for frame in high.frames(prefetch=ahead, backlog=ahead, close=True):
        frame.close()
    groups = -(-40 // gop)
    assert (stages.count("downsample"), stages.count("upsample")) == (groups, groups)
    assert sorted(seen) == list(range(80))


def test_two_models_and_filters_in_one_script(
    down: Callable[..., Any], up: Callable[..., Any], conv_model: Path
) -> None:
    one, two = clip_of(pictures(16, seed=1)), clip_of(pictures(16, seed=2))
    chains: list[Callable[[], Any]] = [
        lambda: up(down(one, fps=15)),
        lambda: up(down(two, fps=15)),
        lambda: core.cvrs.Upsample(core.cvrs.Downsample(one, fps=15, model=str(conv_model))),
    ]
    alone = [frames_of(chain()) for chain in chains]
    together = core.std.Interleave([chain() for chain in chains])
    made = frames_of(together)
    for i, wanted in enumerate(alone):
        np.testing.assert_array_equal(made[i::3], wanted)


def test_upsample_finds_the_model_of_the_same_script(down: Callable[..., Any]) -> None:
    low = down(clip_of(pictures(9)), fps=15)
    restored = core.cvrs.Upsample(low)
    assert restored.num_frames == 9
    assert frames_of(restored).shape == (9, 3, 24, 32)


def test_upsample_of_what_tells_nothing_is_an_error(down: Callable[..., Any]) -> None:
    foreign = clip_of(pictures(9))
    with pytest.raises(vs.Error, match="nothing tells what is to be restored"):
        core.cvrs.Upsample(foreign)
    with pytest.raises(vs.Error, match="no CVRS properties, stamps or marks"):
        core.cvrs.Upsample(down(foreign, fps=15, stamp=0).std.RemoveFrameProps())


def test_bundled_models_do_the_expected_thing() -> None:
    if "lite" not in zoo.names():
        pytest.skip("no bundled weights yet")
    source = clip_of(pictures(10, 64, 48))
    low = core.cvrs.Downsample(source, fps=15)
    assert low.get_frame(0).props.CVRSModel == "lite"
    assert (low.num_frames, low.fps) == (5, 15)
    restored = core.cvrs.Upsample(forget(low), fps=30)
    assert (restored.num_frames, restored.fps) == (10, 30)
    np.testing.assert_array_equal(frames_of(core.cvrs.Upsample(low)), frames_of(restored))


@pytest.mark.parametrize(("count", "width", "height"), [(1, 32, 24), (7, 54, 39), (9, 33, 30)])
def test_the_light_model_takes_any_size(
    count: int, width: int, height: int, save_model: Callable[..., Path]
) -> None:
    model = str(save_model("lite", {"width": 16, "hidden": 8}))
    low = core.cvrs.Downsample(clip_of(pictures(count, width, height)), fps=15, model=model)
    assert (low.width, low.height) == (-(-width // 4) * 4, -(-height // 4) * 4)
    made = frames_of(core.cvrs.Upsample(low))
    assert made.shape == (count, 3, height, width)
    again = core.cvrs.Upsample(
        forget(low), fps=30, width=width, height=height, length=count, model=model
    )
    np.testing.assert_array_equal(frames_of(again), made)


OUT_OF_MEMORY = "out of memory on cpu for a group of 4 frames of 32x24: use a smaller gop"

FAILURES: list[tuple[BaseException, str]] = [
    (KeyError("deep inside"), "KeyError: 'deep inside'"),
    (
        RuntimeError("kernel failed\nException raised from launch at Kernel.cpp:9\n"),
        "kernel failed",
    ),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), OUT_OF_MEMORY),
    (MemoryError(), OUT_OF_MEMORY),
    (ValueError(), "ValueError"),
    (ValueError("\udcff"), "\\udcff"),
    (KeyboardInterrupt(), "KeyboardInterrupt"),
    (SystemExit(3), "SystemExit: 3"),
]


@pytest.mark.parametrize(("error", "message"), FAILURES)
def test_a_failing_frame_leaves_the_filter_usable(
    error: BaseException,
    message: str,
    down: Callable[..., Any],
    up: Callable[..., Any],
    before_stage: SetHook,
) -> None:
    low = down(clip_of(pictures(16)), fps=15, gop=2, device="cpu")
    high = up(low, device="cpu")
    for clip, name, stage in ((low, "Downsample", "embed"), (high, "Upsample", "extract")):

        def fail(at: str, stage: str = stage) -> None:
            if at == stage:
                raise error

        before_stage(fail)
        wanted = message.replace("4 frames", "2 frames") if name == "Upsample" else message
        for _ in range(3):  # more often than there are group buffers
            with pytest.raises(vs.Error) as caught:
                clip.get_frame(clip.num_frames - 1)
            assert str(caught.value).startswith(f"{name}: {wanted}")
            assert "\n" not in str(caught.value)
        before_stage(lambda stage: None)
        assert len(frames_of(clip)) == clip.num_frames


@pytest.mark.parametrize("stage", ["embed", "extract"])
def test_a_model_that_gives_nan_once(
    stage: str,
    down: Callable[..., Any],
    up: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    high = up(down(clip_of(pictures(16)), fps=15))
    with monkeypatch.context() as patch:
        patch.setattr(doubles.NearestModel, stage, lambda self, x: x * float("nan"))
        for _ in range(3):
            with pytest.raises(vs.Error, match="sample: the model gave numbers that are not fin"):
                high.get_frame(15)
    np.testing.assert_array_equal(frames_of(high), np.repeat(pictures(16)[1::2], 2, axis=0))


@pytest.mark.parametrize("sample", [float("nan"), float("inf"), -3e38])
@pytest.mark.parametrize("name", ["Downsample", "Upsample"])
def test_samples_that_are_no_picture(
    name: str,
    sample: float,
    nearest_model: Path,
    tiny_model: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    good = core.resize.Point(clip_of(pictures(16)), format=vs.RGBS)

    def spoil(n: int, f: Any) -> Any:
        made = f.copy()
        if n == 13:
            np.asarray(made[1])[7, 9] = sample
        return made

    bad = core.std.ModifyFrame(good, good, spoil)
    for model in (nearest_model, tiny_model):
        made = getattr(core.cvrs, name)(bad, factor_num=2, model=str(model), gop=4)
        said = ""
        try:
            assert np.isfinite(array_of(made.get_frame(made.num_frames - 1))).all()
        except vs.Error as error:
            said = str(error)
        # Models clamp what is merely too large, some before it becomes too much for them.
        refused = f"{name}: the clip's frames hold samples that are NaN, infinite, or huge"
        assert said in ([refused] if np.isnan(sample) else [refused, ""])
        assert np.isfinite(array_of(made.get_frame(0))).all()
    assert "Warning" not in capfd.readouterr().err


def test_get_frame_inside_frame_eval(down: Callable[..., Any], up: Callable[..., Any]) -> None:
    high = up(down(clip_of(pictures(24)), fps=15))
    wanted = frames_of(high)

    def pick(n: int) -> Any:
        high.get_frame((n * 5) % 24).close()
        return high

    np.testing.assert_array_equal(frames_of(core.std.FrameEval(high, pick)), wanted)


def test_a_filter_made_inside_frame_eval(down: Callable[..., Any], up: Callable[..., Any]) -> None:
    source = clip_of(pictures(12))
    low = down(source, fps=15)
    wanted = frames_of(up(low))
    made = core.std.FrameEval(source, lambda n: up(low))
    np.testing.assert_array_equal(frames_of(made), wanted)


def rgb(**kw: Any) -> Any:
    shape = {"format": vs.RGB24, "width": 32, "height": 24, "length": 8, "fpsnum": 30, "fpsden": 1}
    return core.std.BlankClip(**(shape | kw))


VARIABLE = {"varformat": True, "varsize": True}

ERRORS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("Downsample", {"format": vs.YUV420P8}, {}, "must be RGB24, RGB30, .* got YUV420P8; convert"),
    ("Downsample", {"format": vs.GRAY8}, {}, "got Gray8; convert it with core.resize.Bicubic"),
    ("Upsample", {"format": vs.YUV444P10}, {}, "got YUV444P10; convert it with core.resize"),
    ("Upsample", {"format": vs.RGB27}, {}, "must be RGB24, .* got RGB27"),
    ("Downsample", VARIABLE, {}, "format and size must be constant"),
    ("Upsample", VARIABLE, {}, "format and size must be constant"),
    ("Downsample", {"varsize": True}, {}, "format and size must be constant"),
    ("Downsample", {"fpsnum": 0}, {"fps": 15}, "rate is unknown: give factor_num and factor_den"),
    ("Upsample", {"fpsnum": 0}, {"fps": 15}, "rate is unknown: give factor_num and factor_den"),
    ("Downsample", {}, {"fps": 60}, "target rate 60 is above the clip's rate 30"),
    ("Upsample", {}, {"fps": 15}, "target rate 15 is below the clip's rate 30"),
    (
        "Downsample",
        {},
        {"factor_num": 1, "factor_den": 2},
        "time factor must be at least 1, got 1/2",
    ),
    ("Downsample", {}, {"fps": -1}, "fps must be a finite number of at least 0.001, got -1"),
    ("Downsample", {}, {"fps": float("nan")}, "fps must be a finite number"),
    ("Upsample", {}, {"fps": 1e300}, "fps must be at most"),
    ("Downsample", {}, {"fps_num": 0}, "fps_num must be 1 to 2147483647, got 0"),
    ("Downsample", {}, {"fps_den": 2}, "fps_den is given without fps_num"),
    ("Downsample", {}, {"factor_den": 2}, "factor_den is given without factor_num"),
    ("Downsample", {}, {"fps": 15, "fps_num": 15}, "give either fps or fps_num and fps_den"),
    ("Downsample", {}, {"fps": 15, "factor_num": 2}, "give either a rate or a time factor"),
    ("Downsample", {}, {"scale": 0.5}, "scale must be 1 to 32768, got 0.5"),
    ("Downsample", {}, {"width": 30}, "width must be a multiple of 4, got 30; nearest: 28 and 32"),
    (
        "Downsample",
        {},
        {"height": 21},
        "height must be a multiple of 4, got 21; nearest: 20 and 24",
    ),
    ("Downsample", {}, {"width": 64}, "width must be at most 32 for this clip, got 64"),
    ("Downsample", {}, {"width": -4}, "width must be 1 to 32768, got -4"),
    ("Upsample", {"width": 30}, {}, "width must be a multiple of 4, got 30; nearest: 28 and 32"),
    ("Upsample", {"height": 22}, {}, "height must be a multiple of 4, got 22; nearest: 20 and 24"),
    ("Upsample", {}, {"width": 28}, "width must be 29 to 32768 for this clip, got 28"),
    ("Upsample", {}, {"scale": 5000}, "width must be 29 to 32768 for this clip, got 160000"),
    ("Upsample", {}, {"factor_num": 2, "length": 17}, "length must be 1 to 16, .* got 17"),
    ("Upsample", {}, {"length": 0}, "length must be 1 to 2147483647, got 0"),
    ("Upsample", {}, {"phase": -1}, "phase must be 0 to 2147483647, got -1"),
    ("Upsample", {}, {"factor_num": 2**30}, "the resulting frame rate 32212254720 is beyond"),
    ("Upsample", {"fpsnum": 0}, {"factor_num": 2**30}, "at most 2147483647 frames, got 8589934592"),
    (
        "Downsample",
        {"length": 2**31 - 1},
        {"fps_num": 16777259, "fps_den": 1000003},
        "the low-rate clip must have at most 938[0-9]{4} frames, .*Trim cuts",
    ),
    (
        "Upsample",
        {"fpsnum": 0},
        {"factor_num": 2**26},
        "a group of frames takes about .* smaller gop",
    ),
    ("Downsample", {}, {"factor_num": 10**9}, "a group of frames takes about .* smaller gop"),
    ("Downsample", {}, {"gop": 0}, "gop must be 1 to 256, got 0"),
    ("Downsample", {}, {"gop": 257}, "gop must be 1 to 256, got 257"),
    ("Downsample", {}, {"device": "tpu"}, "device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
    ("Downsample", {}, {"precision": "int8"}, "precision must be one of auto, fp32, fp16, bf16"),
    ("Downsample", {}, {"max_memory": 0}, "max_memory must be 64 to 1048576, got 0"),
    ("Upsample", {}, {"max_memory": 2**20 + 1}, "max_memory must be 64 to 1048576, got 1048577"),
    ("Downsample", {}, {"model": ""}, "model must not be empty"),
]


@pytest.mark.parametrize(("name", "shape", "arguments", "message"), ERRORS)
def test_wrong_arguments_are_one_clear_sentence(
    name: str, shape: dict[str, Any], arguments: dict[str, Any], message: str, nearest_model: Path
) -> None:
    function = getattr(core.cvrs, name)
    with pytest.raises(vs.Error, match=f"^{name}: .*{message}") as caught:
        function(rgb(**shape), **({"model": str(nearest_model)} | arguments))
    assert "\n" not in str(caught.value)


def test_models_that_do_not_load(tmp_path: Path, nearest_model: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(nearest_model.read_bytes()[:-1])
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(bytes(range(256)) * 8)
    (tmp_path / "empty").mkdir()
    for model in (
        "no-such-model",
        str(tmp_path / "gone.safetensors"),
        cut,
        noise,
        tmp_path / "empty",
    ):
        with pytest.raises(vs.Error, match=r"^Downsample: ") as caught:
            core.cvrs.Downsample(rgb(), fps=15, model=str(model))
        assert "\n" not in str(caught.value)
        assert Path(model).stem in str(caught.value)
    with pytest.raises(vs.Error, match="no-such-model") as caught:
        core.cvrs.Downsample(rgb(), fps=15, model="no-such-model")
    assert all(name in str(caught.value) for name in zoo.names())


def test_model_files_of_any_name(nearest_model: Path, tmp_path: Path) -> None:
    named = tmp_path / "modèle 1.safetensors"
    named.write_bytes(nearest_model.read_bytes())
    low = core.cvrs.Downsample(clip_of(pictures(4)), fps=15, model=str(named))
    assert low.get_frame(0).props["CVRSModel"] == "modèle 1"
    assert core.cvrs.Upsample(low, model=str(named)).num_frames == 4
    odd = named.rename(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff.safetensors"))
    for model, message in (
        (os.fsencode(odd), r"checkpoint .*/m\\udcff\.safetensors: not a readable safetensors file"),
        (b"m\xff", r"unknown model 'm\\udcff': neither"),
    ):
        with pytest.raises(vs.Error, match=f"^Downsample: {message}"):
            core.cvrs.Downsample(rgb(), fps=15, model=model)


def test_groups_larger_than_memory_are_refused(
    nearest_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vs_cvrs.plugin.limits.free_memory", lambda: 1 << 20)
    for name, argument in (("Downsample", "gop"), ("Upsample", "factor_num")):
        function = getattr(core.cvrs, name)
        arguments = {"factor_num": 2, "model": str(nearest_model), "device": "cpu"}
        function(rgb(length=80), **arguments)
        message = f"^{name}: a group of frames takes about .* 0.000977 GiB of memory are free: use"
        with pytest.raises(vs.Error, match=message):
            function(rgb(length=80), **arguments | {argument: 40})


def test_models_for_one_ratio_or_scale(save_model: Callable[..., Path]) -> None:
    twice = str(save_model("nearest", {"time_factor": "2", "space_factor": "1"}, name="twice"))
    with pytest.raises(
        vs.Error, match="Downsample: model twice is made for a time factor of 2, got 2000/1001"
    ):
        core.cvrs.Downsample(clip_of(pictures(4), (30000, 1001)), fps=15, model=twice)
    with pytest.raises(
        vs.Error, match="Downsample: model twice is made for a scale of 1, got 32x24 to 16x12"
    ):
        core.cvrs.Downsample(rgb(), fps=15, scale=2, model=twice)
    with pytest.raises(
        vs.Error, match="Upsample: model twice is made for a scale of 1, got 64x48 to 32x24"
    ):
        core.cvrs.Upsample(rgb(), fps=60, scale=2, model=twice)
    assert core.cvrs.Upsample(rgb(), fps=60, width=30, height=21, model=twice).height == 21


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"fps": 60}, "the target rate is given as 60, .* state 30"),
    ({"factor_num": 3}, "the time factor is given as 3, .* state 2"),
    ({"width": 36}, "width is given as 36, .* state 32"),
    ({"scale": 2}, "scale 2 makes width 64, .* state 32"),
    ({"length": 8}, "length is given as 8, .* state 9"),
    ({"phase": 1}, "phase is given as 1, .* state 0"),
    ({"gop": 5}, "gop is given as 5, .* state 4"),
]


@pytest.mark.parametrize(("arguments", "message"), CONTRADICTIONS)
def test_contradictions_name_both_values(
    arguments: dict[str, Any], message: str, down: Callable[..., Any], up: Callable[..., Any]
) -> None:
    low = down(clip_of(pictures(9)), fps=15)
    with pytest.raises(vs.Error, match=f"^Upsample: {message}"):
        up(low, **arguments)
    agreeing = {"fps": 30, "scale": 1, "length": 9, "gop": 4}
    assert up(low, **agreeing).num_frames == 9


def test_another_models_clip_is_an_error_that_names_both(
    down: Callable[..., Any], conv_model: Path
) -> None:
    low = down(clip_of(pictures(9)), fps=15)
    mine = low.get_frame(0).props.CVRSChecksum
    with pytest.raises(
        vs.Error, match=rf"^Upsample: .* model nearest \({mine}\), but the model here is conv \("
    ):
        core.cvrs.Upsample(low, model=str(conv_model))


def test_properties_that_cannot_be_right(down: Callable[..., Any], up: Callable[..., Any]) -> None:
    low = down(clip_of(pictures(9)), fps=15)
    for key, value, message in (
        ("CVRSVersion", 99, "are of version 99, this plugin reads version 1"),
        ("CVRSLength", -3, "CVRSLength must be 1 or more, got -3"),
        ("CVRSGroupLength", "x", "CVRSGroupLength must be 1 or more, got 'x'"),
        ("CVRSIndex", 400, "CVRSIndex 400 and CVRSLength 9 leave nothing to restore"),
        ("CVRSRateNum", 50, "clip's rate 15 contradicts its frame properties, which state 25"),
    ):
        with pytest.raises(vs.Error, match=f"^Upsample: .*{message}"):
            up(core.std.SetFrameProps(low, **{key: value}))
    with pytest.raises(vs.Error, match="rate 24 contradicts its frame properties, which state 15"):
        up(core.std.AssumeFPS(low, fpsnum=24))


def test_an_unreadable_first_frame_is_an_error(up: Callable[..., Any]) -> None:
    def fail(n: int, f: Any) -> Any:
        raise RuntimeError("no such frame")

    clip = rgb()
    with pytest.raises(vs.Error, match=r"^Upsample: the clip's frame 0 could not be read: "):
        up(core.std.ModifyFrame(clip, clip, fail))


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    found = core.cvrs.Version()
    assert "return value" not in capfd.readouterr().err
    assert found["plugin"] == __version__
    assert set(found) == {"plugin", "models", "torch", "cupy", "devices"}
    assert "cpu" in found["devices"]
    models = found["models"] if isinstance(found["models"], list) else [found["models"]]
    assert [m.split()[0] for m in models if m] == zoo.names()


def test_a_gpu_left_unused_is_a_warning(
    down: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    handle = core.add_log_handler(lambda kind, message: told.append(message))
    try:
        down(rgb(), fps=15)
        assert not any("Downsample" in message for message in told)
        told.clear()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        down(rgb(), fps=15)
        down(rgb(), fps=15, device="cpu")
    finally:
        core.remove_log_handler(handle)
    assert len(told) == 1
    assert told[0].startswith("Downsample: works on the CPU, although there is a CUDA device: ")
