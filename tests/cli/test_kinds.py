"""Strangers' files, made by ffmpeg, through encode and decode: what is kept of each, what is said.

The table is docs/file-kinds.md's, row by row.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import commands
import pytest
import vapoursynth as vs

from vs_cvrs.cli import coding, places
from vs_cvrs.cli.clips import Video, open_video
from vs_cvrs.cli.streams import Stream, streams_of
from vs_cvrs.cli.times import TABLE
from vs_cvrs.programs.ffmpeg import find_ffmpeg

PICTURES = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=0.4"]
SOUND = ["-f", "lavfi", "-i", "sine=duration=0.4"]
X264 = ["-c:v", "libx264", "-preset", "ultrafast"]
HDR10 = "log-level=error:hdr10=1:max-cll=1000,400:master-display="
HDR10 += "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"


def tagged(primaries: str, transfer: str, matrix: str, pixels: str = "yuv420p") -> str:
    stated = f"color_primaries={primaries}:color_trc={transfer}:colorspace={matrix}"
    return f"format={pixels},setparams={stated}"


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        words: ffmpeg's, between its standard options and the file.
        name: the file's.
        said, unsaid: what encode says and does not say.
        options: of encode.
        shape, colours, matrix: of pixels; primaries and transfer; of the restored file.
        frames, rate, size: what comes back.
        files: texts that ffmpeg reads, by their names.
    """

    words: list[str]
    name: str = "in.mkv"
    said: list[str] = field(default_factory=list)
    unsaid: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    shape: Fraction = Fraction(1)
    colours: tuple[int, int] = (2, 2)
    matrix: int = 1
    frames: int = 10
    rate: Fraction = Fraction(25)
    size: tuple[int, int] = (64, 48)
    files: dict[str, str] = field(default_factory=dict)


def few(count: int) -> Kind:
    words = [*PICTURES, "-frames:v", str(count), "-c:v", "ffv1"]
    return Kind(words, frames=count, unsaid=["not kept"])


SRT = "1\n00:00:00,000 --> 00:00:00,300\nhello\n"
CHAPTERS = ";FFMETADATA1\n"
for _n, _name in enumerate(("Start", "Ende")):
    CHAPTERS += f"[CHAPTER]\nTIMEBASE=1/10\nSTART={2 * _n}\nEND={2 * _n + 2}\ntitle={_name}\n"

KINDS: dict[str, Kind] = {
    "HDR10": Kind(
        [
            *PICTURES,
            *("-vf", tagged("bt2020", "smpte2084", "bt2020nc", "yuv420p10le")),
            *("-c:v", "libx265", "-x265-params", HDR10),
        ],
        unsaid=["not kept"],
        colours=(9, 16),
        matrix=9,
    ),
    "HLG": Kind(
        [
            *PICTURES,
            *("-vf", tagged("bt2020", "arib-std-b67", "bt2020nc", "yuv420p10le")),
            *("-c:v", "libx265", "-x265-params", "log-level=error"),
        ],
        unsaid=["not kept"],
        colours=(9, 18),
        matrix=9,
    ),
    "10 bits": Kind([*PICTURES, *X264, "-pix_fmt", "yuv422p10le"], unsaid=["not kept"]),
    "film": Kind(
        [*PICTURES, "-vf", tagged("bt470bg", "bt470bg", "bt470bg"), *X264],
        said=["BT.601", "as the file states"],
        unsaid=["not kept"],
        colours=(5, 5),
        matrix=5,
    ),
    "full range": Kind([*PICTURES, *X264, "-pix_fmt", "yuvj420p"], unsaid=["not kept"]),
    "unstated matrix": Kind([*PICTURES, *X264], said=["BT.601 (by its size)"]),
    "rotated": Kind(
        ["-noautorotate", "-display_rotation", "90", *PICTURES, *X264],
        name="in.mp4",
        unsaid=["not kept"],
        size=(48, 64),
    ),
    "odd": Kind([*PICTURES, "-vf", "format=yuv444p,crop=63:45", "-c:v", "ffv1"], size=(63, 45)),
    "portrait": Kind([*PICTURES, "-vf", "crop=36:48", *X264], size=(36, 48)),
    "anamorphic": Kind(
        [*PICTURES, "-vf", "setsar=128/117:max=1000", *X264], shape=Fraction(128, 117)
    ),
    "anamorphic and padded": Kind(
        [*PICTURES, "-vf", "crop=62:46,setsar=16/11", *X264], shape=Fraction(16, 11), size=(62, 46)
    ),
    "interlaced, --progressive": Kind(
        [*PICTURES, "-vf", "setfield=tff", *X264, "-flags", "+ildct+ilme"],
        options=["--progressive"],
    ),
    "ProRes": Kind([*PICTURES, "-c:v", "prores_ks"], name="in.mov", unsaid=["not kept"]),
    "VP9 with transparency": Kind(
        [*PICTURES, "-vf", "format=yuva420p", "-c:v", "libvpx-vp9", "-cpu-used", "8"],
        name="in.webm",
        said=["not kept: transparency"],
    ),
    "AV1": Kind([*PICTURES, "-c:v", "libsvtav1", "-preset", "12"], name="in.mp4"),
    "MJPEG": Kind([*PICTURES, "-c:v", "mjpeg"], name="in.avi", matrix=5),
    "GIF": Kind(list(PICTURES), name="in.gif", unsaid=["not kept"]),
    "APNG": Kind(
        [*PICTURES, "-vf", "format=rgba,colorchannelmixer=aa=0.5", "-f", "apng"],
        name="in.png",
        said=["not kept: transparency"],
    ),
    "WebP": Kind(
        [*PICTURES, "-c:v", "libwebp_anim"],
        name="in.webp",
        options=["--constant-rate", "25"],
        matrix=5,
    ),
    "raw H.264": Kind([*PICTURES, *X264], name="in.h264", options=["--constant-rate", "25"]),
    "AVI with B-frames": Kind(
        [*PICTURES, "-c:v", "mpeg4", "-bf", "2"], name="in.avi", options=["--constant-rate", "25"]
    ),
    "variable rate": Kind(
        [*PICTURES, "-vf", "select='not(eq(n,5))'", "-fps_mode", "vfr", *X264],
        frames=9,
        said=["--constant-rate 25 would make it constant"],
    ),
    "variable rate, made constant": Kind(
        [*PICTURES, "-vf", "select='not(eq(n,5))'", "-fps_mode", "vfr", *X264],
        options=["--constant-rate", "25"],
        unsaid=["varies"],
    ),
    "cover first": Kind(
        [
            *("-f", "lavfi", "-i", "color=red:size=32x32:duration=0.04"),
            *PICTURES,
            *("-map", "0", "-map", "1", "-c:v:0", "mjpeg", "-c:v:1", "libx264"),
            *("-disposition:v:0", "attached_pic"),
        ],
        name="in.mp4",
        unsaid=["not kept"],
    ),
    "two videos": Kind(
        [*PICTURES, "-map", "0:v", "-map", "0:v", *X264], said=["not kept: video track"]
    ),
    "subtitles and attachment": Kind(
        [
            *PICTURES,
            *("-i", "words.srt", "-map", "0", "-map", "1", *X264, "-c:s", "srt"),
            *("-attach", "words.srt", "-metadata:s:t", "mimetype=text/plain"),
        ],
        unsaid=["not kept"],
        files={"words.srt": SRT},
    ),
    "two audio tracks and chapters": Kind(
        [
            *(*PICTURES, *SOUND, "-i", "chapters.txt", "-map_chapters", "2", *X264),
            *("-map", "0", "-map", "1", "-map", "1", "-c:a", "flac"),
        ],
        unsaid=["not kept"],
        files={"chapters.txt": CHAPTERS},
    ),
    "5.1": Kind([*PICTURES, *SOUND, "-ac", "6", "-c:a", "aac", *X264], unsaid=["not kept"]),
    "awkward name": Kind([*PICTURES, *SOUND, *X264], name="-a:b#c?d %03d'\"\\\n.mkv"),
    "name in no encoding": Kind([*PICTURES, *SOUND, *X264], name=os.fsdecode(b"\xff\xe9.mkv")),
    **{f"{n} frames": few(n) for n in range(1, 10)},
}


def make(kind: Kind, folder: Path) -> Path:
    for name, text in kind.files.items():
        (folder / name).write_text(text)
    source = folder / kind.name
    form = source.suffix
    made = folder / f"made{form}"
    subprocess.run(
        [find_ffmpeg(), "-v", "error", "-y", *kind.words, str(made)], cwd=folder, check=True
    )
    return made.rename(source)


def read(path: Path) -> Video:
    return open_video(path, any_times=True)


def is_beside(stream: Stream) -> bool:
    if stream.metadata.get("filename") == TABLE:
        return False
    return stream.cover or stream.kind not in ("video", "data")


@pytest.mark.parametrize("name", KINDS)
def test_kind(name: str, tiny_model: Path, tmp_path: Path) -> None:
    kind = KINDS[name]
    folder = tmp_path / "in"
    folder.mkdir()
    source = make(kind, folder)
    # What is awkward in the name of what is read is so in what is written.
    out = tmp_path / (source.stem + ".mkv")
    back = tmp_path / (source.stem + "-back.mkv")
    said = commands.run(
        "encode", "--model", tiny_model, *kind.options, "--", source, out
    ).stderr.replace("\n", " ")
    for words in kind.said:
        assert words in said
    for words in kind.unsaid:
        assert words not in said
    assert commands.run("info", "--", out)
    commands.run("decode", "--model", tiny_model, "--", out, back)
    low, restored = read(out), read(back)
    clip = restored.clip
    assert (clip.num_frames, clip.fps) == (kind.frames, kind.rate)
    assert (clip.width, clip.height) == kind.size
    assert low.pixel_shape == restored.pixel_shape == kind.shape
    for video in (low, restored):
        properties = video.clip.get_frame(0).props
        assert (video.colours.primaries, video.colours.transfer) == kind.colours
        is_rgb = video is low
        assert properties["_Matrix"] == (0 if is_rgb else kind.matrix)
        assert properties["_Range"] == int(is_rgb)
    beside = [(s.kind, s.codec, s.cover) for s in streams_of(source) if is_beside(s)]
    for path in (out, back):
        found = [(s.kind, s.codec, s.cover) for s in streams_of(path) if is_beside(s)]
        assert sorted(found) == sorted(beside)
    assert len(list(tmp_path.iterdir())) == 3


def test_colours_are_read_back_by_ffmpeg(tiny_model: Path, tmp_path: Path) -> None:
    source = make(KINDS["HLG"], tmp_path)
    out = tmp_path / "low.mkv"
    for codec in ("x264", "x265", "ffv1"):
        words = ["--model", tiny_model, "--codec", codec, "--overwrite"]
        commands.run("encode", source, out, *words)
        command = [find_ffmpeg(), "-hide_banner", "-i", str(out)]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        assert "(pc, gbr/bt2020/arib-std-b67" in said, said


@pytest.mark.parametrize("form", ["mp4", "mov", "mkv"])
def test_x265_in_any_container(form: str, low: Path, tiny_model: Path, tmp_path: Path) -> None:
    silent, out = tmp_path / "low.mkv", tmp_path / f"out.{form}"
    commands.ffmpeg("-i", low, "-an", "-c", "copy", silent)
    commands.run(
        "decode", silent, out, "--codec", "x265", "--preset", "ultrafast", "--model", tiny_model
    )
    assert read(out).clip.num_frames == 75
    if form != "mkv":
        assert b"hvc1" in out.read_bytes()


def test_names_of_tracks_and_chapters(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "chapters.txt").write_text(CHAPTERS)
    source = tmp_path / "in.mkv"
    words = [
        *(*PICTURES, "-i", tmp_path / "chapters.txt", *SOUND, *SOUND),
        *("-map", "0", "-map", "2", "-map", "3", "-map_chapters", "1", *X264, "-c:a", "flac"),
        *("-metadata:s:a:0", "language=ger", "-metadata:s:a:0", "title=Kommentar"),
        *("-metadata:s:a:1", "language=fre", "-metadata:s:a:1", "BPS=17"),
    ]
    commands.ffmpeg(*words, source)
    low, out = tmp_path / "low.mkv", tmp_path / "out.mp4"
    commands.run("encode", source, low, "--model", tiny_model)
    said = commands.run("decode", low, tmp_path / "out.mkv", "--model", tiny_model)
    assert "not kept" not in said.stderr
    commands.run("decode", low, out, "--model", tiny_model)
    for path in (low, tmp_path / "out.mkv", out):
        audio = [s for s in streams_of(path) if s.kind == "audio"]
        assert [s.metadata.get("language") for s in audio] == ["ger", "fre"], path
        if path.suffix == ".mkv":
            assert audio[0].metadata["title"] == "Kommentar"
            assert "bps" not in audio[1].metadata
        text = commands.ffmpeg("-i", path, "-f", "ffmetadata", "-")
        assert "title=Start" in text, path
        assert "title=Ende" in text, path


@pytest.mark.parametrize("codec", ["wmav2", "pcm_u8"])
def test_audio_that_the_container_does_not_take(
    codec: str, low: Path, tiny_model: Path, tmp_path: Path
) -> None:
    loud = tmp_path / "low.mkv"
    commands.ffmpeg(
        "-i", low, *SOUND, "-map", "0:v", "-map", "1", "-c:v", "copy", "-c:a", codec, loud
    )
    words = ["--model", tiny_model]
    said = commands.run("decode", loud, tmp_path / "out.mp4", *words, code=1).stderr
    assert f"a .mp4 file cannot hold the audio of {loud} ({codec})" in said
    assert "an OUT that ends in .mkv can" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["low.mkv"]
    commands.run("decode", loud, tmp_path / "out.mkv", *words)


@pytest.mark.parametrize("flags", ["tff", "bff"])
def test_interlaced(flags: str, tiny_model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.mkv", tmp_path / "out.mkv"
    commands.ffmpeg(*PICTURES, "-vf", f"setfield={flags}", *X264, "-flags", "+ildct+ilme", source)
    said = commands.run("encode", source, out, "--model", tiny_model, code=1).stderr
    order = "top field first" if flags == "tff" else "bottom field first"
    assert f"is interlaced ({order}, frame 0); make it progressive first" in said
    assert "--progressive takes its frames as they are" in said
    assert not out.exists()


@pytest.mark.parametrize("begin", [0, 40])
def test_one_interlaced_frame(
    begin: int, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is met when it is encoded; what is tested is that the whole file is not read for it."""
    source, out = tmp_path / "in.mkv", tmp_path / "out.mkv"
    commands.ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:d=8", "-c:v", "ffv1", source)

    def open_mixed(*words: Any, **options: Any) -> Video:
        video = open_video(*words, **options)
        one = vs.core.std.SetFieldBased(video.clip[begin + 3], 2)
        clip = video.clip[: begin + 3] + one + video.clip[begin + 4 :]
        return replace(video, clip=clip)

    def refuse(_: Any) -> None:
        raise AssertionError("the whole file is read")

    monkeypatch.setattr(coding, "open_video", open_mixed)
    monkeypatch.setattr(places, "undecodable", refuse)
    words = ["--model", tiny_model, "--segment", 8]
    said = commands.run("encode", source, out, *words, code=1).stderr.strip().splitlines()[-1]
    assert said.startswith(f"vs-cvrs encode: {source} is interlaced (frame {begin + 3}); make it")
    assert said.endswith("--progressive takes its frames as they are")
    words += ["--start", "3f"]
    said = commands.run("encode", source, out, *words, "--overwrite", code=1).stderr
    assert f"is interlaced (frame {begin + 3})" in said
    commands.run("encode", source, out, *words, "--overwrite", "--progressive")


@pytest.mark.parametrize("form", ["mkv", "ts"])
def test_truncated(form: str, tiny_model: Path, tmp_path: Path) -> None:
    whole, part, out = tmp_path / f"w.{form}", tmp_path / f"p.{form}", tmp_path / "out.mkv"
    long = "testsrc2=size=64x48:rate=30:duration=4"
    commands.ffmpeg("-f", "lavfi", "-i", long, "-c:v", "libx264", "-bf", 3, "-g", 250, whole)
    content = whole.read_bytes()
    said = ""
    for percent in (57, 60, 63):
        part.write_bytes(content[: len(content) * percent // 100])
        said += commands.run("encode", part, out, "--model", tiny_model, "--overwrite").stderr
        assert read(out).clip.fps == 15
    assert "near the end of" in said
    assert "cannot be read (is it cut off?)" in said


def test_an_mp4_without_its_index(tiny_model: Path, tmp_path: Path) -> None:
    whole, part = tmp_path / "w.mp4", tmp_path / "p.mp4"
    commands.ffmpeg(*PICTURES, *X264, whole)
    part.write_bytes(whole.read_bytes()[:-2000])
    words = ["encode", part, tmp_path / "out.mkv", "--model", tiny_model]
    assert "cannot be read as video" in commands.run(*words, code=1).stderr


def test_files_without_times(tiny_model: Path, tmp_path: Path) -> None:
    source = make(KINDS["raw H.264"], tmp_path)
    said = commands.run("encode", source, tmp_path / "o.mkv", "--model", tiny_model, code=1).stderr
    assert "does not say when its frames are shown; give their rate with --constant-rate" in said
    commands.run("info", source, code=3)


def test_low_rate_files_of_any_times(low: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Stamps tell the rate: what the container says of it does not matter."""
    uneven = tmp_path / "uneven.mkv"
    times = "setpts='PTS+if(gt(N,9),2/TB,0)'"
    lossless = ["-c:v", "libx264rgb", "-qp", "0", "-pix_fmt", "bgr24"]
    commands.ffmpeg("-i", low, "-an", "-vf", times, "-fps_mode", "vfr", *lossless, uneven)
    assert commands.run("info", uneven)
    out = tmp_path / "out.mkv"
    commands.run("decode", uneven, out, "--model", tiny_model)
    assert (read(out).clip.num_frames, read(out).clip.fps) == (75, Fraction(30000, 1001))


def test_info_names_a_file_of_any_name(low: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff.mkv")
    shutil.copy(low, odd)
    assert "\\udcff.mkv" in commands.run("info", odd).stdout
    assert json.loads(commands.run("info", odd, "--json").stdout)["file"] == str(odd)
