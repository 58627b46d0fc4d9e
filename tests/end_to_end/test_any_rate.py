"""Any rate and any size, through vspipe and lossless files, with the model that "auto" takes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
import watched
from clips import clip_of, core, frames_of, panned, pictures
from places import DATA

from vs_cvrs import metrics
from vs_cvrs.checkpoints import zoo
from vs_cvrs.programs.ffmpeg import find_ffmpeg

CARPHONE = DATA / "val" / "carphone_pristine.mp4"

pytestmark = pytest.mark.skipif("lite-any" not in zoo.names(), reason="lite-any is not bundled")


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 41 frames: real footage where it is there, moving waves else."""
    made = tmp_path_factory.mktemp("footage") / "source.mkv"
    waves = ["-f", "rawvideo", "-pix_fmt", "gbrp", "-s", "176x144", "-r", "30", "-i", "-"]
    given = ["-i", str(CARPHONE)] if CARPHONE.exists() else waves
    command = [find_ffmpeg(), "-v", "error", *given, "-frames:v", "41", "-an", "-c:v", "ffv1"]
    frames = panned(41, 176, 144)[:, [1, 2, 0]].tobytes()
    subprocess.run([*command, "-pix_fmt", "gbrp", str(made)], check=True, timeout=60, input=frames)
    return made


def source(footage: Path, rate: Fraction) -> Any:
    clip = core.bs.VideoSource(str(footage), cachemode=0)
    clip = core.resize.Point(clip, format=vs.RGB24)
    return core.std.AssumeFPS(clip, fpsnum=rate.numerator, fpsden=rate.denominator)


@pytest.mark.parametrize(
    ("high", "low", "least"),
    [
        (Fraction(30), Fraction(24000, 1001), 34),
        (Fraction(30), Fraction(24), 34),
        (Fraction(60), Fraction(24), 30),
        (Fraction(50), Fraction(30), 32),
    ],
)
def test_rates_through_a_lossless_file(
    high: Fraction,
    low: Fraction,
    least: float,
    footage: Path,
    tmp_path: Path,
    write_script: Callable[[str], Path],
    vapoursynth_env: dict[str, str],
) -> None:
    sender = write_script(
        f"""
clip = core.bs.VideoSource({str(footage)!r}, cachemode=0)
clip = core.resize.Point(clip, format=vs.RGB24)
clip = core.std.AssumeFPS(clip, fpsnum={high.numerator}, fpsden={high.denominator})
low = core.cvrs.Downsample(clip, fps_num={low.numerator}, fps_den={low.denominator})
core.resize.Point(low, format=vs.YUV444P10, matrix=1, range=0).set_output()
"""
    )
    file = tmp_path / "low.mkv"
    watched.encode(sender, ["-c:v", "ffv1"], file, vapoursynth_env)

    sent = core.bs.VideoSource(str(file), cachemode=0)
    sent = core.resize.Point(sent, format=vs.RGB24, matrix_in=1, range_in=0)
    sent = core.std.AssumeFPS(sent, fpsnum=low.numerator, fpsden=low.denominator)
    original = source(footage, high)
    duration = original.num_frames / high
    assert abs(sent.num_frames / low - duration) <= 1 / low
    restored = core.cvrs.Upsample(sent, fps_num=high.numerator, fps_den=high.denominator)
    assert restored.fps == high
    assert restored.num_frames == original.num_frames  # stamps tell
    assert restored.get_frame(0).props["CVRSIntact"] == 1
    blind = core.cvrs.Upsample(sent, fps_num=high.numerator, fps_den=high.denominator, stamp=0)
    assert 0 <= blind.num_frames / high - duration <= 1 / low
    assert metrics.clip_psnr(frames_of(restored), frames_of(original)) > least


@pytest.mark.parametrize(
    ("size", "scale"), [((42, 30), 1.0), ((66, 50), 1.5), ((100, 90), 3.3), ((64, 36), 4.0)]
)
def test_sizes_that_do_not_divide(size: tuple[int, int], scale: float) -> None:
    width, height = size
    clip = clip_of(pictures(9, width, height))
    low = core.cvrs.Downsample(clip, fps=20, scale=scale)
    assert low.width % 4 == low.height % 4 == 0
    restored = core.cvrs.Upsample(low)
    assert (restored.width, restored.height) == size
    assert (restored.num_frames, restored.fps) == (9, 30)
    blind = core.cvrs.Upsample(
        core.std.RemoveFrameProps(low), fps=30, width=width, height=height, length=9, stamp=0
    )
    # Stamps change nothing but the few samples that they are in.
    assert frames_of(blind).shape == (9, 3, height, width)


@pytest.mark.parametrize(("fps", "scale", "length"), [(20, 2, 8), (20, 1, 4), (15, 2, 4)])
def test_both_ends_know_the_length_of_groups(fps: int, scale: int, length: int) -> None:
    source = panned(26, 96, 64)
    low = core.cvrs.Downsample(clip_of(source), fps=fps, scale=scale, stamp=0)
    assert low.get_frame(0).props["CVRSGroupLength"] == length
    told = frames_of(core.cvrs.Upsample(low))
    arguments: dict[str, Any] = {"fps": 30, "width": 96, "height": 64, "length": 26}
    blind = core.cvrs.Upsample(core.std.RemoveFrameProps(low), stamp=0, **arguments)
    np.testing.assert_array_equal(frames_of(blind), told)
    other = core.cvrs.Upsample(core.std.RemoveFrameProps(low), stamp=0, gop=2, **arguments)
    assert (frames_of(other) != told).any()


@pytest.mark.parametrize(
    "arguments",
    [
        {"factor_num": 5, "factor_den": 4},
        {"factor_num": 2, "scale": 2.0},
        {"factor_num": 1, "scale": 4.0},
        {"factor_num": 4, "gop": 1},
        {"factor_num": 3, "gop": 16},
        {"factor_num": 7, "gop": 2},
    ],
)
@pytest.mark.parametrize("count", [1, 2, 50])
def test_very_small_frames_and_short_and_long_groups(arguments: dict[str, Any], count: int) -> None:
    clip = clip_of(pictures(count, 16, 16))
    low = core.cvrs.Downsample(clip, model="lite-any", **arguments)
    restored = core.cvrs.Upsample(low)
    assert frames_of(restored).shape == (count, 3, 16, 16)


def test_nothing_to_do_is_the_identity() -> None:
    clip = clip_of(pictures(6))
    low = core.cvrs.Downsample(clip, factor_num=1, stamp=0)
    np.testing.assert_array_equal(frames_of(low), pictures(6))
    restored = core.cvrs.Upsample(low, factor_num=1, stamp=0)
    np.testing.assert_array_equal(frames_of(restored), pictures(6))


def test_frame_properties_say_which_model() -> None:
    clip = clip_of(pictures(8))
    checksums: dict[str, Any] = {}
    for name, arguments in (
        ("lite", {"fps": 15}),
        ("lite-any", {"fps": 24}),
        ("lite-any", {"fps": 15, "scale": 2.0}),
    ):
        low = core.cvrs.Downsample(clip, **arguments)
        named = core.cvrs.Downsample(clip, model=name, **arguments)
        props = low.get_frame(0).props
        assert props["CVRSChecksum"] == named.get_frame(0).props["CVRSChecksum"]
        checksums.setdefault(name, props["CVRSChecksum"])
        assert props["CVRSChecksum"] == checksums[name]
    assert checksums["lite"] != checksums["lite-any"]
