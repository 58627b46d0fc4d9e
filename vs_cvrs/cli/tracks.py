"""What of a file is copied beside the frames, and what of it another file cannot hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vs_cvrs.cli.streams import Stream, metadata_of, streams_of
from vs_cvrs.cli.tags import ffmetadata
from vs_cvrs.cli.times import TABLE

__all__ = ["Cover", "Tracks", "choose_tracks", "main_video"]

_MKV = ".mkv"
_KINDS = {"subtitle": "subtitle track", "data": "data track"}
_TEXTS = {"subrip", "ass", "ssa", "webvtt", "mov_text", "text"}
"""Subtitles that are text, which ffmpeg makes others of."""

_MKV_SUBTITLES = {"subrip", "ass", "ssa", "webvtt"}
_MKV_SUBTITLES |= {"hdmv_pgs_subtitle", "hdmv_text_subtitle", "dvd_subtitle", "dvb_subtitle"}
_PICTURES = {  # of covers: ending and type
    "mjpeg": ("jpg", "image/jpeg"),
    "png": ("png", "image/png"),
    "bmp": ("bmp", "image/bmp"),
    "gif": ("gif", "image/gif"),
    "webp": ("webp", "image/webp"),
    "tiff": ("tif", "image/tiff"),
}
_MP4_PICTURES = {"mjpeg", "png", "bmp"}

_OF_THE_FILE = re.compile(r"major_brand|minor_version|compatible_brands|encoder|duration|cvrs_.*")
"""Of a file's metadata, what is true of that file alone."""

_OF_THE_TRACK = re.compile(
    r"(bps|duration|number_of_frames|number_of_bytes|_statistics_.*)(-\w+)?", re.IGNORECASE
)
"""Of a track's, what Matroska files say of the whole track; wrong for a part of it."""


@dataclass(frozen=True)
class Cover:
    """A cover picture that a Matroska file is to have as an attachment.

    Attributes:
        stream: which of the source's it is.
        name, mime: the attachment's.
    """

    stream: int
    name: str
    mime: str


@dataclass(frozen=True)
class Tracks:
    """What of a file is copied beside the frames.

    Attributes:
        words: ffmpeg's options for a file that is its input 1, and whose frames come first.
        covers: pictures to be attached.
        attachments: how many ``words`` copy; those that are attached are numbered from there on.
        lost: what is not copied, in a few words each.
    """

    words: tuple[str, ...] = ()
    covers: tuple[Cover, ...] = ()
    attachments: int = 0
    lost: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether any is copied."""
        return "-map" in self.words or bool(self.covers)


def main_video(streams: Sequence[Stream]) -> int | None:
    """The first track of pictures that move; None where there is none of pictures."""
    videos = [n for n, stream in enumerate(streams) if stream.kind == "video"]
    return next((n for n in videos if not streams[n].cover), videos[0] if videos else None)


def choose_tracks(source: Path, output: Path) -> Tracks:
    """What of ``source`` goes into a file of the kind of ``output``.

    Raises:
        CliError: the source cannot be read.
    """
    streams = streams_of(source)
    choice = _Choice(streams, output.suffix.lower())
    return choice.choose(metadata_of(source), _chapters_track(source, streams))


def _chapters_track(source: Path, streams: Sequence[Stream]) -> int | None:
    """The track in which MP4 files have the names of chapters; FFmpeg makes it anew."""
    unknown = [n for n, stream in enumerate(streams) if stream.codec == "bin_data"]
    return unknown[-1] if unknown and "[CHAPTER]" in ffmetadata(source) else None


class _Choice:
    """The options for each stream, in the order of the source's."""

    def __init__(self, streams: Sequence[Stream], form: str) -> None:
        self._streams = streams
        self._mkv = form == _MKV
        self._takes_covers = form == ".mp4"
        self._words: list[str] = []
        self._counts = Counter({"v": 1})
        self._covers: list[Cover] = []
        self._lost: Counter[str] = Counter()

    def choose(self, metadata: Mapping[str, str], chapters: int | None) -> Tracks:
        main = main_video(self._streams)
        for number, stream in enumerate(self._streams):
            if number == main:
                self._describe_main(stream)
            elif stream.cover:
                self._cover(number, stream)
            elif stream.kind == "audio":
                self._copy("a", number, stream)
            elif stream.kind == "subtitle":
                self._subtitle(number, stream)
            elif stream.kind == "attachment":
                self._attachment(number, stream)
            elif number != chapters:
                self._lost[_KINDS.get(stream.kind, f"{stream.kind} track")] += 1
        words = ["-map_metadata:g", "1:g", "-map_chapters", "1", *self._words]
        for name in metadata:
            if _OF_THE_FILE.fullmatch(name):
                words += ["-metadata", f"{name}="]
        lost = (name if n == 1 else f"{n} {name}s" for name, n in self._lost.items())
        return Tracks(tuple(words), tuple(self._covers), self._counts["t"], tuple(lost))

    def _describe_main(self, stream: Stream) -> None:
        self._words += ["-disposition:v:0", str(stream.disposition)]
        named = {"language": stream.metadata.get("language"), "title": _title(stream)}
        for name, value in named.items():
            if value:
                self._words += ["-metadata:s:v:0", f"{name}={value}"]

    def _copy(self, kind: str, number: int, stream: Stream, codec: str = "copy") -> None:
        place = f"{kind}:{self._counts[kind]}"
        self._counts[kind] += 1
        self._words += ["-map", f"1:{number}", f"-c:{place}", codec]
        for name in stream.metadata:
            if _OF_THE_TRACK.fullmatch(name):
                self._words += [f"-metadata:s:{place}", f"{name}="]
        title = _title(stream)
        if title and "title" not in stream.metadata:
            self._words += [f"-metadata:s:{place}", f"title={title}"]
            self._words += [f"-metadata:s:{place}", "name="]

    def _subtitle(self, number: int, stream: Stream) -> None:
        if stream.codec in (_MKV_SUBTITLES if self._mkv else {"mov_text"}):
            self._copy("s", number, stream)
        elif stream.codec in _TEXTS:
            self._copy("s", number, stream, "srt" if self._mkv else "mov_text")
        else:
            self._lost[f"{stream.codec} subtitle track"] += 1

    def _cover(self, number: int, stream: Stream) -> None:
        if self._mkv and stream.codec in _PICTURES:
            ending, mime = _PICTURES[stream.codec]
            # Matroska's own name for the picture that stands for the file.
            name = f"cover{len(self._covers) or ''}.{ending}"
            self._covers.append(Cover(number, stream.metadata.get("filename", name), mime))
        elif self._takes_covers and stream.codec in _MP4_PICTURES:
            self._words += [f"-disposition:v:{self._counts['v']}", "attached_pic"]
            self._copy("v", number, stream)
        else:
            self._lost["cover picture"] += 1

    def _attachment(self, number: int, stream: Stream) -> None:
        if stream.metadata.get("filename") == TABLE:
            return  # of a low-rate file's frames
        if not self._mkv:
            self._lost["attachment"] += 1
            return
        place = f"t:{self._counts['t']}"
        self._copy("t", number, stream)
        unnamed = {"filename": f"attachment{number}", "mimetype": "application/octet-stream"}
        for name, value in unnamed.items():
            if not stream.metadata.get(name):
                self._words += [f"-metadata:s:{place}", f"{name}={value}"]


def _title(stream: Stream) -> str | None:
    """A track's title, which MP4 files call its name."""
    return stream.metadata.get("title") or stream.metadata.get("name")
