"""All that a file holds beside its frames, there and back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import commands
import pytest

from vs_cvrs.cli.streams import Stream, metadata_of, streams_of

PICTURES = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=2"]
X264 = ["-c:v", "libx264", "-preset", "ultrafast"]
SRT = "1\n00:00:00,100 --> 00:00:00,500\nhello\n\n2\n00:00:01,000 --> 00:00:01,500\nworld\n"
ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.20,0:00:00.90,Default,,0,0,0,,{\\i1}styled
"""
CHAPTERS = ";FFMETADATA1\ntitle=Das Ganze\nARTIST=Wer\nCVRS_LIGHT=1,1\n"
CHAPTERS += "".join(
    f"[CHAPTER]\nTIMEBASE=1/10\nSTART={10 * n}\nEND={10 * n + 10}\ntitle={name}\n"
    for n, name in enumerate(("Start", "Ende"))
)
DEFAULT, COMMENT, FORCED, HARD_OF_HEARING, COVER = 0x1, 0x8, 0x40, 0x80, 0x400


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film with everything in it."""
    folder = tmp_path_factory.mktemp("rich")
    files = {"words.srt": SRT, "signs.ass": ASS, "chapters.txt": CHAPTERS}
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "Font.ttf").write_bytes(b"\0\1\0\0 letters")
    cover = folder / "cover.jpg"
    commands.ffmpeg("-f", "lavfi", "-i", "color=red:size=32x32", "-frames:v", 1, cover)
    attached = {"Font.ttf": "application/x-truetype-font", "cover.jpg": "image/jpeg"}
    attachments: list[object] = []
    for number, (name, mime) in enumerate(attached.items()):
        attachments += ["-attach", folder / name, f"-metadata:s:t:{number}", f"mimetype={mime}"]
    named = {
        "v:0": ("jpn", "Bild", DEFAULT),
        "a:0": ("ger", "Ton", 0),
        "a:1": ("fre", "Kommentar", DEFAULT + COMMENT),
        "s:0": ("eng", "Words", FORCED),
        "s:1": ("spa", "SDH", HARD_OF_HEARING),
    }
    names = []
    for place, (language, title, flags) in named.items():
        for text in (f"language={language}", f"title={title}"):
            names += [f"-metadata:s:{place}", text]
        names += [f"-disposition:{place}", str(flags)]
    path = folder / "rich.mkv"
    commands.ffmpeg(
        *(*PICTURES, "-i", folder / "chapters.txt"),
        *("-f", "lavfi", "-i", "sine=440:duration=2", "-f", "lavfi", "-i", "sine=880:duration=2"),
        *("-i", folder / "words.srt", "-i", folder / "signs.ass"),
        *("-map", 0, "-map", 2, "-map", 3, "-map", 4, "-map", 5),
        *("-map_metadata", 1, "-map_chapters", 1, *X264, "-c:a:0", "flac", "-c:a:1", "aac"),
        *("-c:s:0", "srt", "-c:s:1", "ass", *attachments, *names, path),
    )
    return path


def said_of(stream: Stream) -> tuple[str, str, int, str | None, str | None]:
    title = stream.metadata.get("title") or stream.metadata.get("name")
    codec = "" if stream.kind == "video" else stream.codec
    return stream.kind, codec, stream.disposition, stream.metadata.get("language"), title


def content(path: Path, stream: str) -> str:
    """What is in the packets of a stream, or the attachment."""
    if stream.startswith("t:"):
        out = path.with_suffix(".attachment")
        words = [f"-dump_attachment:{stream}", out, "-i", path]
        commands.ffmpeg(*words, "-map", "0:v:0", "-c", "copy", "-t", 0, "-f", "null", "-")
        return hashlib.sha256(out.read_bytes()).hexdigest()
    return commands.ffmpeg("-i", path, "-map", f"0:{stream}", "-c", "copy", "-f", "md5", "-")


def pictures_of_words() -> bytes:
    """A subtitle as Blu-rays have it: a square of 8x8 pixels for half a second."""

    def part(kind: int, seconds: float, body: bytes) -> bytes:
        time = round(90000 * seconds).to_bytes(4, "big") + bytes(4)
        return b"PG" + time + bytes([kind]) + len(body).to_bytes(2, "big") + body

    def size(*numbers: int) -> bytes:
        return b"".join(number.to_bytes(2, "big") for number in numbers)

    shown = size(64, 48) + b"\x10" + size(0) + b"\x80\0\0\1" + size(0) + b"\0\0" + size(8, 8)
    window = b"\1\0" + size(8, 8, 8, 8)
    palette = b"\0\0" + bytes([1, 235, 128, 128, 255])
    runs = b"\0\x88\1\0\0" * 8
    picture = size(0) + b"\0\xc0" + (4 + len(runs)).to_bytes(3, "big") + size(8, 8) + runs
    gone = size(64, 48) + b"\x10" + size(1) + b"\0\0\0\0"
    first = [(0x16, shown), (0x17, window), (0x14, palette), (0x15, picture), (0x80, b"")]
    last = [(0x16, gone), (0x17, window), (0x80, b"")]
    return b"".join(part(kind, 0.2, body) for kind, body in first) + b"".join(
        part(kind, 0.7, body) for kind, body in last
    )


def there_and_back(source: Path, form: str, model: Path, folder: Path) -> tuple[Path, Path, str]:
    low, out = folder / "low.mkv", folder / f"out{form}"
    said = commands.run("encode", source, low, "--model", model).stderr
    assert "not kept" not in said
    return low, out, commands.run("decode", low, out, "--model", model).stderr


def test_all_of_it_in_matroska(rich: Path, tiny_model: Path, tmp_path: Path) -> None:
    low, out, said = there_and_back(rich, ".mkv", tiny_model, tmp_path)
    assert "not kept" not in said
    wanted = [said_of(stream) for stream in streams_of(rich)]
    assert {stream[0] for stream in wanted} == {"video", "audio", "subtitle", "attachment"}
    for path in (low, out):
        assert [said_of(stream) for stream in streams_of(path)] == wanted
        found = metadata_of(path)
        assert (found["title"], found["artist"]) == ("Das Ganze", "Wer")
        assert ("cvrs_version" in found, "cvrs_light" in found) == (path == low, False)
        assert commands.ffmpeg("-i", path, "-f", "ffmetadata", "-").count("[CHAPTER]") == 2
        for stream in ("a:0", "a:1", "s:0", "s:1", "v:1", "t:0"):
            assert content(path, stream) == content(rich, stream), (path, stream)


def test_what_an_mp4_file_takes_of_it(rich: Path, tiny_model: Path, tmp_path: Path) -> None:
    _, out, said = there_and_back(rich, ".mp4", tiny_model, tmp_path)
    assert "decode: not kept: attachment." in said.splitlines()
    assert metadata_of(out)["title"] == "Das Ganze"
    streams = [s for s in streams_of(out) if s.kind != "data"]
    assert [(s.kind, s.codec) for s in streams][1:] == [
        ("audio", "flac"),
        ("audio", "aac"),
        ("subtitle", "mov_text"),
        ("subtitle", "mov_text"),
        ("video", "mjpeg"),
    ]
    named = [said_of(stream)[3:] for stream in streams]
    assert named[:5] == [said_of(stream)[3:] for stream in streams_of(rich)[:5]]
    assert streams[-1].disposition == COVER
    assert streams[2].disposition & COMMENT
    assert streams[3].disposition & FORCED
    assert streams[4].disposition & HARD_OF_HEARING
    assert content(out, "v:1") == content(rich, "v:1")
    words = commands.ffmpeg("-i", out, "-map", "0:s:0", "-f", "srt", "-")
    assert words.strip() == SRT.strip()
    assert "styled" in commands.ffmpeg("-i", out, "-map", "0:s:1", "-f", "srt", "-")


def test_an_mp4_file_as_the_source(rich: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Its text becomes SRT, its covers attachments, its chapters' track chapters; and back."""
    folder = tmp_path / "mp4"
    folder.mkdir()
    _, source, _ = there_and_back(rich, ".mp4", tiny_model, folder)
    low, out, said = there_and_back(source, ".mp4", tiny_model, tmp_path)
    assert "not kept" not in said
    assert [s.codec for s in streams_of(low) if s.kind == "subtitle"] == ["subrip", "subrip"]
    assert [s.metadata["title"] for s in streams_of(low)[:3]] == ["Bild", "Ton", "Kommentar"]
    assert streams_of(low)[-1].metadata["filename"] == "cover.jpg"
    for stream in ("a:0", "a:1", "s:0", "v:1"):
        assert content(out, stream) == content(source, stream), stream
    assert commands.ffmpeg("-i", low, "-f", "ffmetadata", "-").count("[CHAPTER]") == 2


def test_a_part_of_it(rich: Path, tiny_model: Path, tmp_path: Path) -> None:
    low, out = tmp_path / "low.mkv", tmp_path / "out.mkv"
    commands.run("encode", rich, low, "--model", tiny_model, "--start", "0.8", "--end", "1.8")
    commands.run("decode", low, out, "--model", tiny_model)
    for path in (low, out):
        words = commands.ffmpeg("-i", path, "-map", "0:s:0", "-f", "srt", "-")
        assert words.strip() == "1\n00:00:00,200 --> 00:00:00,700\nworld", path
        assert content(path, "t:0") == content(rich, "t:0")
        assert content(path, "v:1") == content(rich, "v:1")


@pytest.mark.parametrize(
    ("codec", "form", "kept"),
    [
        ("webvtt", ".mkv", "webvtt"),
        ("webvtt", ".mp4", "mov_text"),
        ("webvtt", ".mov", "mov_text"),
        ("dvdsub", ".mkv", "dvd_subtitle"),
        ("dvdsub", ".mp4", ""),
        ("dvbsub", ".mkv", "dvb_subtitle"),
        ("copy", ".mkv", "hdmv_pgs_subtitle"),
    ],
)
def test_subtitles(codec: str, form: str, kept: str, tiny_model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    if codec == "webvtt":
        (tmp_path / "words.srt").write_text(SRT)
        words = ["-i", tmp_path / "words.srt"]
    else:
        (tmp_path / "words.sup").write_bytes(pictures_of_words())
        words = ["-i", tmp_path / "words.sup", "-s", "64x48"]
    commands.ffmpeg(*PICTURES, *words, "-map", 0, "-map", 1, *X264, "-c:s", codec, source)
    _, out, said = there_and_back(source, form, tiny_model, tmp_path)
    assert [s.codec for s in streams_of(out) if s.kind == "subtitle"] == ([kept] if kept else [])
    assert ("decode: not kept: dvd_subtitle subtitle track." in said.splitlines()) == (not kept)


def test_covers_in_quicktime_files(rich: Path, tiny_model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    maps = ["-map", "0:v:0", "-map", "0:a:1", "-map", "0:v:1", "-disposition:v:1", "attached_pic"]
    commands.ffmpeg("-i", rich, *maps, "-c", "copy", source)
    _, out, said = there_and_back(source, ".mov", tiny_model, tmp_path)
    assert "decode: not kept: cover picture." in said.splitlines()
    assert [s.kind for s in streams_of(out)[:2]] == ["video", "audio"]
    assert not any(s.cover for s in streams_of(out))


def test_tracks_that_no_low_rate_file_takes(tiny_model: Path, tmp_path: Path) -> None:
    source, low = tmp_path / "in.mov", tmp_path / "low.mkv"
    words = ["-timecode", "00:00:01:00", "-map", "0", "-map", "0"]
    commands.ffmpeg(*PICTURES, *words, *X264, source)
    said = commands.run("encode", source, low, "--model", tiny_model).stderr
    assert "encode: not kept: video track, 2 data tracks." in said.splitlines()
    assert [s.kind for s in streams_of(low)] == ["video"]
