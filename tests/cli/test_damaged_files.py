"""Low-rate files that are not whole: what is told, and that it goes on."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import vapoursynth as vs

from vs_cvrs.cli import coding
from vs_cvrs.cli import probe as probing
from vs_cvrs.cli.clips import Video, core, first_frame, open_video, to_rgb24, undecodable

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


def test_another_model_brings_nothing_back(low: Path, tmp_path: Path) -> None:
    said = commands.run("decode", low, tmp_path / "out.mkv", "--model", "lite").stderr
    assert "warning: 75 frames of groups that are not as they were sent" in said
    assert "came back at" not in said


def test_a_cut_file_is_told(low: Path, tiny_model: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.mkv"
    commands.ffmpeg("-i", low, "-an", "-frames:v", 21, "-c", "copy", part)
    said = commands.run("decode", part, tmp_path / "out.mkv", "--model", tiny_model).stderr
    assert f"{part} holds 21 of the 38 frames that were sent" in said


def words(model: Path) -> list[object]:
    return ["--model", model]


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
    holed, out = tmp_path / "holed.mkv", tmp_path / "out.mkv"
    missing = commands.holed(holed)
    said = commands.run("encode", holed, out, "--model", tiny_model).stderr
    assert f"of {holed} cannot be decoded (first: {missing})" in said
    assert open_video(out).clip.num_frames == 30


def test_a_file_that_is_read_to_a_part_only(tiny_model: Path, tmp_path: Path) -> None:
    whole, holed, out = (tmp_path / f"{name}.mkv" for name in ("whole", "holed", "out"))
    pictures = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=8", "-c:v", "libx264"]
    commands.ffmpeg(*pictures, "-g", 25, "-cluster_time_limit", 500, whole)
    content = bytearray(whole.read_bytes())
    begin, end = len(content) // 2, len(content) * 97 // 100
    content[begin:end] = bytes(end - begin)
    holed.write_bytes(content)
    said = commands.run("encode", holed, out, "--model", tiny_model).stderr
    wanted = rf"frames of {holed} can be read up to (\d\.\d) s of the 8\.0 s that it states"
    found = re.search(wanted, said)
    assert found
    assert 1 < float(found[1]) < 6
    assert not open_video(whole).remarks


def test_a_part_of_a_file_that_states_no_track_s_length(tmp_path: Path) -> None:
    whole, longer, part = (tmp_path / f"{name}.mkv" for name in ("whole", "longer", "part"))
    pictures = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=8", "-c:v", "libx264"]
    sound = ["-f", "lavfi", "-i", "sine=d=10", "-c:a", "flac", "-cluster_time_limit", 500]
    commands.ffmpeg(*pictures, "-g", 25, whole)
    commands.ffmpeg("-i", whole, *sound, "-c:v", "copy", longer)
    for path in (whole, longer):
        content = path.read_bytes()
        assert content.count(b"DURATION") > 0
        path.write_bytes(content.replace(b"DURATION", b"NOTATION"))
        assert not open_video(path).remarks
    part.write_bytes(longer.read_bytes()[: longer.stat().st_size * 60 // 100])
    said = " ".join(open_video(part).remarks)
    assert re.search(r"can be read up to [3-6]\.\d s of the 10\.0 s that it states", said), said


def test_frames_that_are_missing_amid_a_file(tiny_model: Path, tmp_path: Path) -> None:
    holed, low, out = tmp_path / "holed.ts", tmp_path / "low.mkv", tmp_path / "out.mkv"
    pictures = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=3"]
    missing = "select='not(between(n,3,8)+between(n,40,41))'"
    commands.ffmpeg(*pictures, "-vf", missing, "-fps_mode", "passthrough", "-c:v", "libx264", holed)
    commands.run("encode", holed, low, *words(tiny_model))
    commands.run("decode", low, out, *words(tiny_model))
    before, after = open_video(holed).times, open_video(out).times
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after - after[0], before - before[0], atol=0.001)


@pytest.mark.parametrize("number", [0, 5])
def test_a_first_group_that_cannot_be_decoded(
    number: int, source: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_holed(*words: Any, **options: Any) -> Video:
        return with_a_hole(open_video(*words, **options), number)

    monkeypatch.setattr(coding, "open_video", open_holed)
    low, out = tmp_path / "low.mkv", tmp_path / "out.mkv"
    said = commands.run("encode", source, low, *words(tiny_model)).stderr
    assert said.count(f"warning: 1 frame of {source} cannot be decoded (first: {number})") == 1
    assert open_video(low).clip.num_frames == 38
    monkeypatch.setattr(probing, "open_video", open_holed)
    finding = probing.probe(low, every=True)
    assert (finding.looked_at, finding.good) == (38, 37)
    said = commands.run("decode", low, out, *words(tiny_model)).stderr
    assert f"warning: 1 frame of {low} cannot be decoded (first: {number})" in said
    assert open_video(out).clip.num_frames == 75


def test_the_first_frame_is_the_first_that_can_be_made(source: Path) -> None:
    video = with_a_hole(open_video(source), 0)
    assert first_frame(video.clip).props["_PictType"] == "P"
    assert to_rgb24(video.clip)[0].get_frame(1).width == 64
