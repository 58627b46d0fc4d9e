"""vs-cvrs info, compare and doctor on real files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import commands
import pytest

from vs_cvrs.cli import comparing, doctor
from vs_cvrs.cli.clips import core, open_video, to_rgb24
from vs_cvrs.cli.probe import State, probe
from vs_cvrs.cli.tags import read_tags

LOSSLESS = ["-c:v", "libx264rgb", "-qp", "0", "-pix_fmt", "bgr24"]


@pytest.mark.parametrize("form", ["mkv", "mp4", "nut"])
def test_intact_in_any_container(form: str, low: Path, tmp_path: Path) -> None:
    other = tmp_path / f"other.{form}"
    commands.ffmpeg("-i", low, "-map_metadata", -1, "-an", "-c", "copy", "-strict", -2, other)
    assert read_tags(other) is None
    found = probe(other, every=True)
    assert (found.state, found.looked_at, found.good) == (State.INTACT, 38, 38)
    assert found.first is not None
    assert (found.first.length, found.first.index) == (75, 0)


def test_a_file_that_lost_its_tags_is_decoded(low: Path, tiny_model: Path, tmp_path: Path) -> None:
    bare, out = tmp_path / "bare.mkv", tmp_path / "out.mkv"
    commands.ffmpeg("-i", low, "-map_metadata", -1, *LOSSLESS, "-an", bare)
    said = commands.run("decode", bare, out, "--model", tiny_model).stderr
    assert "75 frames at 29.97 fps, 64x48" in said
    assert "warning" not in said


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_error(unbuffered: str, low: Path) -> None:
    with subprocess.Popen(
        [*commands.COMMAND, "info", str(low)],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read().strip() == b""
        assert process.wait(60) == 1


ALTERED = {
    "x264 crf 1": (["-c:v", "libx264", "-crf", "1", "-pix_fmt", "yuv444p10le"], "with loss"),
    "x264 crf 18, 8 bits": (["-c:v", "libx264", "-pix_fmt", "yuv444p"], "YUV444P8, which does not"),
    "4:4:4 lossless, 8 bits": (
        ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv444p"],
        "YUV444P8, which does not hold every RGB colour",
    ),
    "4:2:0": (["-c:v", "ffv1", "-pix_fmt", "yuv420p10le"], "YUV420P10: the chroma is subsampled"),
    "scaled": (["-vf", "scale=128:96", *LOSSLESS], "scaled or cropped from 64x48 to 128x96"),
    "cropped": (["-vf", "crop=48:48", *LOSSLESS], "scaled or cropped from 64x48 to 48x48"),
    "blurred": (["-vf", "gblur=0.3", *LOSSLESS], "encoded with loss, filtered, or"),
    "flipped": (["-vf", "hflip", *LOSSLESS], "encoded with loss, filtered, or"),
}


@pytest.mark.parametrize("kind", ALTERED)
def test_altered(kind: str, low: Path, tmp_path: Path) -> None:
    words, because = ALTERED[kind]
    other = tmp_path / "other.mkv"
    commands.ffmpeg("-i", low, "-an", *words, other)
    found = probe(other, every=True)
    assert (found.state, found.good) == (State.ALTERED, 0)
    assert because in found.because
    bare = tmp_path / "bare.mkv"
    commands.ffmpeg("-i", other, "-map_metadata", -1, "-c", "copy", bare)
    assert probe(bare).state == State.NONE


def test_damage_in_the_middle(low: Path, tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mkv"
    blur = "gblur=0.4:enable='between(n,10,12)'"
    commands.ffmpeg("-i", low, "-an", "-vf", blur, *LOSSLESS, other)
    found = probe(other, every=True)
    assert (found.state, found.looked_at, found.good) == (State.ALTERED, 38, 35)
    assert "3 of 38 frames are not as they were sent" in found.because
    said = commands.run("decode", other, tmp_path / "out.mkv", "--model", tiny_model).stderr
    assert "warning: 16 frames of groups that are not as they were sent" in said


@pytest.mark.parametrize(
    ("select", "state", "because"),
    [
        ("gte(n,8)", State.INTACT, "the file holds 30 of 38 frames, cut between groups"),
        ("gte(n,7)", State.CUT, "the file begins at frame 7, 3 into a group of 4"),
        ("lt(n,22)", State.CUT, "the file ends at frame 22, 2 into a group of 4"),
        ("between(n,5,29)", State.CUT, "begins at frame 5, 1 into a group of 4 and ends at frame"),
        ("lt(n,8)+gte(n,16)", State.INTACT, "every group is whole and as it was sent, in 2 parts"),
        (
            "not(eq(n,20))",
            State.CUT,
            "3 of 37 are of groups that are not whole, the first of them frame 20: some are "
            "missing, repeated, or of another clip",
        ),
    ],
)
def test_cut(select: str, state: State, because: str, low: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mkv"
    choose = f"select='{select}',setpts=N/(15000/1001)/TB"
    commands.ffmpeg("-i", low, "-an", "-vf", choose, *LOSSLESS, "-r", "15000/1001", other)
    found = probe(other, every=True)
    assert found.state == state, found
    assert because in found.because


def test_a_file_of_somebody_else(source: Path) -> None:
    done = commands.run("info", source, code=State.NONE)
    assert "not one of our files, or altered" in done.stdout


def test_frames_too_small(tiny_model: Path, tmp_path: Path) -> None:
    tiny, out = tmp_path / "tiny.mkv", tmp_path / "low.mkv"
    commands.ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=8x8:rate=30:duration=0.5", "-c:v", "ffv1", tiny
    )
    commands.run("encode", tiny, out, "--model", tiny_model)
    assert "too small to carry a stamp" in commands.run("info", out, code=State.UNKNOWN).stdout


def test_what_info_prints(low: Path) -> None:
    text = commands.run("info", low).stdout
    for words in ("intact", "tiny", "75 frames of 64x48", "30000/1001"):
        assert words in text
    facts = json.loads(commands.run("info", low, "--json", "--all").stdout)
    assert facts["state"] == "intact"
    assert (facts["frames looked at"], facts["intact"]) == (38, 38)
    assert "cannot be read" in commands.run("info", __file__, code=1).stderr


def test_damaged_tags(low: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mkv"
    commands.ffmpeg("-i", low, "-c", "copy", "-metadata", "CVRS_RATE=1/0", other)
    said = commands.run("info", other, code=1).stderr
    assert "has damaged CVRS tags: '1/0' is not a fraction" in said


def test_compare(source: Path, tmp_path: Path) -> None:
    worse, png = tmp_path / "worse.mkv", tmp_path / "curves.png"
    commands.ffmpeg("-i", source, "-vf", "gblur=2:enable='eq(n,7)'", "-c:v", "ffv1", worse)
    done = commands.run("compare", source, worse, "--png", png)
    assert "worst frames: 7 (" in done.stdout.replace("\n", " ").replace("  ", " ")
    assert png.read_bytes()[:4] == b"\x89PNG"
    clips = [to_rgb24(open_video(path).clip)[0] for path in (source, worse)]
    result = comparing.score(*clips)
    assert result.worst()[0] == 7
    assert result.psnr.size == result.ssim.size == 75
    assert result.psnr[7] < 40 < min(result.psnr[6], result.psnr[8])


def test_compare_wants_the_same_size_and_length(source: Path, low: Path) -> None:
    said = commands.run("compare", source, low, code=1).stderr
    assert "differ in their number of frames: 75 and 38" in said


def test_doctor() -> None:
    done = commands.run("doctor")
    lines = {line[8:38].strip(): line[:8].strip() for line in done.stdout.splitlines()}
    needed = ["Python", "VapourSynth", "cvrs plugin", "BestSource", "PyTorch", "ffmpeg"]
    assert [lines[name] for name in needed] == ["ok"] * len(needed)
    assert lines["encoder x264, rgb, 8 bits"] == "ok"


def test_doctor_gives_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise FileNotFoundError("no ffmpeg on PATH")

    monkeypatch.setattr(doctor, "find_ffmpeg", missing)
    done = commands.run("doctor", code=1)
    advice = "install ffmpeg, or: pip install imageio-ffmpeg"
    assert f"missing {'ffmpeg':30}{advice}" in done.stdout
    assert core.core_version.release_major >= 75
