"""Segments, audio, chapters and tags into one file, without another encode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vs_cvrs.cli.encoder import BITEXACT, Ffmpeg
from vs_cvrs.cli.running import CliError, temporary_folder
from vs_cvrs.cli.segments import Encoding
from vs_cvrs.cli.streams import streams_of
from vs_cvrs.programs.ffmpeg import file_url

__all__ = ["Audio", "check_audio", "join"]

_QUIET = ["-v", "error", "-nostdin", "-y"]
_TRIED = 0.5  # seconds of audio

# What Matroska files say of the whole track is wrong for a part of it.
_STATISTICS = ["BPS", "DURATION", "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES", "_STATISTICS_TAGS"]
_STATISTICS += ["_STATISTICS_WRITING_APP", "_STATISTICS_WRITING_DATE_UTC"]


@dataclass(frozen=True)
class Audio:
    """Audio and chapters to copy: from where to where on the file's time axis, in seconds.

    ``begin`` is where the first frame of the video is; ``end`` None is the end of the file.
    """

    path: Path
    begin: float
    end: float | None


def check_audio(source: Path, output: Path) -> None:
    """Raise CliError where a file of the output's kind cannot hold the source's audio.

    A little of it is put into such a file: ffmpeg alone knows what goes with what.
    """
    if "audio" not in {stream.kind for stream in streams_of(source)}:
        return
    with temporary_folder() as folder:
        words = [*_QUIET, "-i", file_url(source), "-map", "0:a", "-c", "copy", "-t", str(_TRIED)]
        try:
            with Ffmpeg([*words, f"trial{output.suffix}"], folder):
                pass
        except CliError as error:
            codecs = {stream.codec for stream in streams_of(source) if stream.kind == "audio"}
            instead = (
                "convert the audio first, for example to FLAC (ffmpeg -i IN -c copy -c:a flac)"
                if output.suffix.lower() == ".mkv"
                else "an OUT that ends in .mkv can"
            )
            raise CliError(
                f"a {output.suffix} file cannot hold the audio of {source} "
                f"({', '.join(sorted(codecs))}); {instead}"
            ) from error


def join(
    segments: Sequence[tuple[Path, int]],
    rate: Fraction,
    encoding: Encoding,
    audio: Audio,
    tags: dict[str, str],
    joined: Path,
) -> None:
    """Write ``joined``.

    Args:
        segments: files in the folder of ``joined``, and how many frames they hold.
        rate: frames per second.
        encoding: of the frames.
        audio: what is copied beside them.
        tags: global tags.
        joined: the file to write. A list of the segments is written beside it.

    Raises:
        CliError: ffmpeg fails. OSError: the disk is full.
    """
    lines = ["ffconcat version 1.0"]
    for path, frames in segments:
        lines += [f"file {path.name}", f"duration {float(frames / rate):.6f}"]
    listing = joined.with_name("segments.txt")
    listing.write_text("\n".join(lines) + "\n", encoding="utf-8")
    where = []
    early = []
    if audio.begin > 0:
        where += ["-seek_timestamp", "1", "-ss", f"{audio.begin:.6f}"]
        # Audio from before the first frame would move the video to a later time.
        early = ["-copypriorss:a", "0"]
    if audio.end is not None:
        where += ["-t", f"{audio.end - audio.begin:.6f}"]
    words = [
        *_QUIET,
        *(*encoding.stated, "-f", "concat", "-safe", "0", "-i", listing.name),
        *where,
        *("-i", file_url(audio.path), "-map", "0:v:0", "-map", "1:a?"),
        # Of the source's metadata, that of its tracks and chapters: languages, titles, names.
        *("-map_metadata:g", "-1", "-map_chapters", "1"),
        *(word for name in _STATISTICS for word in ("-metadata:s:a", f"{name}=")),
        *("-c", "copy", "-r:v", str(rate), *early),
        *(("-tag:v", encoding.tag) if encoding.tag else ()),
        *(word for key, value in tags.items() for word in ("-metadata", f"{key}={value}")),
        *BITEXACT,
        joined.name,
    ]
    # In their folder, because ffmpeg takes names in a list for parts of an address.
    with Ffmpeg(words, joined.parent):
        pass
