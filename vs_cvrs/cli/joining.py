"""Segments, audio, chapters and tags into one file, without another encode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vs_cvrs.cli.encoder import BITEXACT, Ffmpeg

__all__ = ["Audio", "join"]


@dataclass(frozen=True)
class Audio:
    """Audio and chapters to copy: from where to where on the file's time axis, in seconds.

    ``begin`` is where the first frame of the video is; ``end`` None is the end of the file.
    """

    path: Path
    begin: float
    end: float | None


def join(
    segments: Sequence[tuple[Path, int]],
    rate: Fraction,
    audio: Audio,
    tags: dict[str, str],
    joined: Path,
) -> None:
    """Write ``joined``.

    Args:
        segments: files in one folder, which a list is written to, and how many frames they hold.
        rate: frames per second.
        audio: what is copied beside them.
        tags: global tags.
        joined: the file to write.

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
    with Ffmpeg(
        [
            *("-v", "error", "-nostdin", "-y"),
            *("-f", "concat", "-safe", "0", "-i", str(listing)),
            *where,
            *("-i", str(audio.path.resolve()), "-map", "0:v:0", "-map", "1:a?"),
            *("-map_metadata", "-1", "-map_chapters", "1"),
            *("-c", "copy", "-r:v", str(rate), *early),
            *(word for key, value in tags.items() for word in ("-metadata", f"{key}={value}")),
            *BITEXACT,
            str(joined),
        ]
    ):
        pass
