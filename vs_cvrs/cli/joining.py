"""Segments, and what is copied beside their frames, into one file, without another encode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vs_cvrs.cli.encoder import BITEXACT, Ffmpeg
from vs_cvrs.cli.running import CliError, trial_folder
from vs_cvrs.cli.segments import Encoding
from vs_cvrs.cli.streams import streams_of
from vs_cvrs.cli.times import TABLE, Times, retiming, table_text
from vs_cvrs.cli.tracks import Tracks
from vs_cvrs.programs.ffmpeg import file_url

__all__ = ["Beside", "check_audio", "join"]

_QUIET = ["-v", "error", "-nostdin", "-y"]
_TRIED = 0.5  # seconds of audio
_RETIMING = "retiming.txt"


@dataclass(frozen=True)
class Beside:
    """What is copied beside the frames: from where to where on the file's time axis, in seconds.

    Attributes:
        path: the file.
        begin: where the first frame of the video is.
        end: where the copy ends; None: at the end of the file.
        tracks: what of it.
        table: times to be attached.
    """

    path: Path
    begin: float
    end: float | None
    tracks: Tracks
    table: Times | None = None


def check_audio(source: Path, output: Path) -> None:
    """Raise CliError where a file of the output's kind cannot hold the source's audio.

    A little of it is put into such a file: ffmpeg alone knows what goes with what.
    """
    if "audio" not in {stream.kind for stream in streams_of(source)}:
        return
    with trial_folder() as folder:
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
    beside: Beside,
    tags: dict[str, str],
    joined: Path,
    times: Times | None = None,
) -> None:
    """Write ``joined``.

    Args:
        segments: files in the folder of ``joined``, and how many frames they hold.
        rate: frames per second.
        encoding: of the frames.
        beside: what is copied beside them.
        tags: global tags.
        joined: the file to write. Lists and pictures that go into it are written beside it.
        times: of each frame, where they do not follow each other at ``rate``.

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
    if beside.begin > 0:
        where += ["-seek_timestamp", "1", "-ss", f"{beside.begin:.6f}"]
        # What is from before the first frame would move the video to a later time.
        early = ["-copypriorss:a", "0", "-copypriorss:s", "0"]
    if beside.end is not None:
        where += ["-t", f"{beside.end - beside.begin:.6f}"]
    timing = ["-r:v:0", str(rate)]
    if times is not None:
        # Of a film it is longer than an argument may be.
        joined.with_name(_RETIMING).write_text(retiming(times, rate), encoding="utf-8")
        timing = ["-/bsf:v:0", _RETIMING]
    words = [
        *_QUIET,
        *(*encoding.stated, "-f", "concat", "-safe", "0", "-i", listing.name),
        *where,
        *("-i", file_url(beside.path), "-map", "0:v:0", "-c", "copy"),
        *beside.tracks.words,
        *_attached(beside, joined.parent),
        *(*timing, *early),
        *(("-tag:v:0", encoding.tag) if encoding.tag else ()),
        *(word for key, value in tags.items() for word in ("-metadata", f"{key}={value}")),
        # Else MP4 keeps none but the names that it knows.
        *(("-movflags", "use_metadata_tags") if tags and joined.suffix != ".mkv" else ()),
        *BITEXACT,
        joined.name,
    ]
    # In their folder, because ffmpeg takes names in a list for parts of an address.
    with Ffmpeg(words, joined.parent):
        pass


def _attached(beside: Beside, folder: Path) -> list[str]:
    """Options for what is attached to a Matroska file; it is written into ``folder``."""
    attached = []
    for number, cover in enumerate(beside.tracks.covers):
        picture = f"cover{number}"
        words = ["-i", file_url(beside.path), "-map", f"0:{cover.stream}", "-c", "copy"]
        with Ffmpeg([*_QUIET, *words, "-frames:v", "1", "-f", "image2pipe", picture], folder):
            pass
        attached.append((picture, cover.name, cover.mime))
    if beside.table is not None:
        (folder / TABLE).write_text(table_text(beside.table), encoding="utf-8")
        attached.append((TABLE, TABLE, "text/plain"))
    options = []
    for place, (file, name, mime) in enumerate(attached, beside.tracks.attachments):
        options += ["-attach", file]
        options += [f"-metadata:s:t:{place}", f"filename={name}"]
        options += [f"-metadata:s:t:{place}", f"mimetype={mime}"]
    return options
