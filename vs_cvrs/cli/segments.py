"""Frames into segment files, each of which any process can make again."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import vapoursynth as vs

from vs_cvrs.cli.encoder import BITEXACT, Ffmpeg
from vs_cvrs.programs.ffmpeg import file_url
from vs_cvrs.programs.system import sync
from vs_cvrs.timeline import Timeline

__all__ = ["Encoding", "Segment", "group_begins", "make_segments", "plan_segments"]

_ORDER_OF_PLANES = [1, 2, 0]  # ffmpeg's of RGB: green, blue, red
_SUBSAMPLING = {(0, 0): "444", (1, 0): "422", (1, 1): "420"}
_MUXERS = {"nut": "nut", "mkv": "matroska"}


@dataclass(frozen=True)
class Encoding:
    """How frames are encoded.

    Attributes:
        options: ffmpeg's video options, the pixel format among them.
        colours: ffmpeg's options for matrix, range, primaries and transfer.
        container: of the segments. NUT keeps exact times; Matroska keeps the colour description of
            codecs that do not carry it themselves.
        tag: the stream's name in an MP4 file; empty for ffmpeg's own choice.
        stated: ffmpeg's options for what the container says of the display.
    """

    options: list[str]
    colours: list[str]
    container: str = "nut"
    tag: str = ""
    stated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Segment:
    """A part of a job: frames ``begin`` to before ``end``."""

    number: int
    begin: int
    end: int

    @property
    def frames(self) -> int:
        """How many."""
        return self.end - self.begin


def plan_segments(frames: int, length: int, begins: Sequence[int]) -> list[Segment]:
    """``frames`` frames in segments of about ``length``.

    Args:
        frames: how many there are.
        length: of a segment; each ends up to a group earlier, and none is shorter than a group.
        begins: where groups begin, increasing from 0. A group is computed as a whole, so that one
            in two segments is computed twice where these are made apart.
    """
    places = [begins[bisect.bisect_right(begins, n) - 1] for n in range(0, frames, length)]
    ends = [*sorted(set(places)), frames]
    return [Segment(n, begin, end) for n, (begin, end) in enumerate(itertools.pairwise(ends))]


def group_begins(timeline: Timeline, begin: int, length: int) -> list[int]:
    """At which of the restored frames groups begin, of a clip from frame ``begin`` on."""
    begins = []
    low = 0
    while (place := timeline.high_begin(low) - begin) < length:
        begins.append(max(0, place))
        low += timeline.group_length
    return begins


def make_segments(
    clip: Any,
    encoding: Encoding,
    segments: Sequence[Segment],
    partial: Callable[[Segment], Path],
    frame_done: Callable[[], None],
) -> Iterator[tuple[Segment, int]]:
    """Encode segments that follow each other, in one go over the clip's frames.

    Args:
        clip: the job's frames, YUV or RGB of constant format and rate.
        encoding: of the frames.
        segments: without a gap between them.
        partial: the file to write for a segment; no other process may write to it.
        frame_done: called after each frame.

    Yields:
        Each segment whose file is whole and on the disk, and how many of its frames are of groups
        that are not as they were sent, or hide nothing that arrived.

    Raises:
        CliError: ffmpeg fails. OSError: a disk is full. vapoursynth.Error: a frame cannot be made.
    """
    if not segments:
        return
    # One iterator: the next segment's first frames are made while this one's last are encoded.
    part = clip[segments[0].begin : segments[-1].end]
    if clip.format.color_family == vs.RGB:
        part = vs.core.std.ShufflePlanes(part, _ORDER_OF_PLANES, vs.RGB)
    with contextlib.closing(part.frames(close=True)) as frames:
        for segment in segments:
            path = partial(segment)
            damaged = 0
            with Ffmpeg(_command(clip, encoding, path)) as ffmpeg:
                for _ in range(segment.frames):
                    frame = next(frames)
                    ffmpeg.send(frame)
                    damaged += _is_damaged(frame.props)
                    frame_done()
            sync(path)
            yield segment, damaged


def _is_damaged(properties: Mapping[str, Any]) -> bool:
    """Whether Upsample says of a frame's group that it did not arrive.

    Groups in files that are encoded with loss are never intact, and may have no marks left.
    """
    if "CVRSIntact" in properties:
        return int(properties["CVRSIntact"]) == 0
    return str(properties.get("CVRSSource", "")) == "interpolated"


def _command(clip: Any, encoding: Encoding, path: Path) -> list[str]:
    if clip.format.color_family == vs.RGB:
        pixels = "gbrp"
    else:
        pixels = f"yuv{_SUBSAMPLING[clip.format.subsampling_w, clip.format.subsampling_h]}p"
    if clip.format.bits_per_sample > 8:
        pixels += f"{clip.format.bits_per_sample}le"
    # Stated on both sides: ffmpeg converts what it thinks is of another matrix than the output's,
    # and takes primaries and transfer from the frames that come in, whatever the output's options.
    source = [*encoding.colours, "-f", "rawvideo"]
    source += ["-pix_fmt", pixels, "-s", f"{clip.width}x{clip.height}"]
    source += ["-r", str(Fraction(clip.fps)), "-i", "-"]
    exact = ["-flags:v", "+bitexact", *BITEXACT, "-f", _MUXERS[encoding.container]]
    # ffmpeg reads the frames from its standard input, so -nostdin would be wrong here.
    return [
        *("-v", "error", "-y"),
        *source,
        *encoding.options,
        *encoding.colours,
        *exact,
        file_url(path),
    ]
