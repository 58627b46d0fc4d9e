"""Lossless encoders in 10-bit 4:4:4 carry the 8-bit low-rate frames exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import vapoursynth as vs
import watched
from clips import clip_of, core, frames_of, pictures

CODECS = {
    "x264": ["-c:v", "libx264", "-qp", "0"],
    "x265": ["-c:v", "libx265", "-x265-params", "lossless=1:log-level=error"],
    "ffv1": ["-c:v", "ffv1"],
}


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip_through_a_file(
    codec: str,
    conv_model: Path,
    tmp_path: Path,
    write_script: Callable[[str], Path],
    vapoursynth_env: dict[str, str],
) -> None:
    sender = write_script(
        f"""
low = core.cvrs.Downsample(clip_of(pictures(17, 64, 48)), fps=15, model={str(conv_model)!r})
core.resize.Point(low, format=vs.YUV444P10, matrix=1).set_output()
"""
    )
    encoded = tmp_path / "low.mkv"
    watched.encode(sender, [*CODECS[codec], "-pix_fmt", "yuv444p10le"], encoded, vapoursynth_env)

    direct = core.cvrs.Downsample(clip_of(pictures(17, 64, 48)), fps=15, model=str(conv_model))
    source = core.bs.VideoSource(str(encoded), cachemode=0)
    read = core.resize.Point(source, format=vs.RGB24, matrix_in=1)
    assert (read.num_frames, read.fps) == (9, 15)
    np.testing.assert_array_equal(frames_of(read), frames_of(direct))
    restored = core.cvrs.Upsample(read, fps=30, length=17, model=str(conv_model))
    np.testing.assert_array_equal(frames_of(restored), frames_of(core.cvrs.Upsample(direct)))
