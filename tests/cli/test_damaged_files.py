"""Low-rate files that are not whole: what is told, and that it goes on."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import commands
import pytest
import vapoursynth as vs

from vs_cvrs.cli import coding
from vs_cvrs.cli import probe as probing
from vs_cvrs.cli.clips import Video, core, open_video, undecodable

LOSSLESS = ["-c:v", "libx264rgb", "-qp", "0", "-pix_fmt", "bgr24"]


def test_resume_remembers_damaged_frames(low: Path, tiny_model: Path, tmp_path: Path) -> None:
    other, out = tmp_path / "other.mkv", tmp_path / "out.mkv"
    blur = "gblur=0.4:enable='between(n,2,2)'"
    commands.ffmpeg("-i", low, "-an", "-vf", blur, *LOSSLESS, other)
    words = ["decode", other, out, "--model", tiny_model, "--segment", 8]
    process = commands.start(*words)
    commands.wait_for(tmp_path / "out.mkv.part" / "00000.nut", process)
    process.kill()
    process.communicate(timeout=60)
    assert not out.exists()
    said = commands.run(*words, "--resume").stderr
    assert "warning: 8 frames of groups that are not as they were sent" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.mkv", "out.mkv"]


def test_a_cut_file_is_told(low: Path, tiny_model: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.mkv"
    commands.ffmpeg("-i", low, "-an", "-frames:v", 21, "-c", "copy", part)
    said = commands.run("decode", part, tmp_path / "out.mkv", "--model", tiny_model).stderr
    assert f"{part} holds 21 of the 38 frames that were sent" in said


def with_a_hole(video: Video, number: int) -> Video:
    """The video with a frame that fails, as BestSource's do where it cannot decode one."""

    def fail(n: int) -> Any:
        if n == number:
            raise vs.Error("VideoSource: No frame returned")
        return video.clip

    return replace(video, clip=core.std.FrameEval(video.clip, fail))


def test_low_rate_frames_that_cannot_be_decoded(
    low: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_holed(*words: Any, **options: Any) -> Video:
        return with_a_hole(open_video(*words, **options), 13)

    assert undecodable(open_holed(low).clip) == (13,)
    for module in (coding, probing):
        monkeypatch.setattr(module, "open_video", open_holed)
    found = probing.probe(low, every=True)
    assert (found.state, found.looked_at, found.good) == (probing.State.ALTERED, 38, 37)
    assert "1 of 38 frames are not as they were sent; 1 of them cannot be" in found.because
    out = tmp_path / "out.mkv"
    said = commands.run("decode", low, out, "--model", tiny_model, "--segment", 10).stderr
    assert f"warning: 1 frame of {low} cannot be decoded (first: 13)" in said
    assert "8 frames of groups that are not as they were sent" in said
    assert open_video(out).clip.num_frames == 75
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mkv"]


def test_a_source_that_cannot_be_decoded_in_places(tiny_model: Path, tmp_path: Path) -> None:
    whole, holed, out = (tmp_path / f"{name}.mkv" for name in ("whole", "holed", "out"))
    pictures = "testsrc2=size=128x96:rate=15:d=4"
    lossless = ["-x265-params", "lossless=1:log-level=error", "-pix_fmt", "yuv444p10le"]
    commands.ffmpeg("-f", "lavfi", "-i", pictures, "-c:v", "libx265", *lossless, whole)
    broken = bytearray(whole.read_bytes())
    dice = random.Random(2)  # what makes a hole with the ffmpeg that this was written with
    begin = int(len(broken) * dice.uniform(0.3, 0.7))
    for place in range(begin, begin + 200):
        broken[place] ^= dice.randrange(1, 256)
    holed.write_bytes(broken)
    missing = undecodable(open_video(holed).clip)
    if not missing:
        pytest.skip("this ffmpeg makes another file, and BestSource decodes something of it")
    said = commands.run("encode", holed, out, "--model", tiny_model).stderr
    assert f"of {holed} cannot be decoded (first: {missing[0]})" in said
    assert open_video(out).clip.num_frames == 30
