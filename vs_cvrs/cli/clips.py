"""Video files as VapourSynth clips, and clips as RGB."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import vapoursynth as vs

from vs_cvrs.cli.colours import BT709, UNSTATED, Colours
from vs_cvrs.cli.extent import readable_end, stated_end
from vs_cvrs.cli.running import NO_TEMPORARY_FILES, CliError, counted, temporary_folder
from vs_cvrs.cli.streams import Stream, bestsource_path, streams_of
from vs_cvrs.cli.times import Times
from vs_cvrs.cli.timing import Timing, rate_text
from vs_cvrs.cli.tracks import main_video

__all__ = [
    "Video",
    "check_progressive",
    "core",
    "each_frame",
    "first_frame",
    "frame_array",
    "interlaced",
    "open_video",
    "source_form",
    "stated_matrix",
    "to_low_rate",
    "to_rgb",
    "to_rgb24",
    "undecodable",
    "usual_matrix",
]

core = vs.core

_RESERVED = 3
_BT601 = 6
_SD_HEIGHT = 576
_NO_TIMES = "unknown timestamp"  # what BestSource says of frames that have none
_ANY_RATE = Fraction(25)  # of frames that have no times, where none are needed
_MATRICES = {
    1: "BT.709",
    4: "FCC",
    5: "BT.601",
    6: "BT.601",
    7: "SMPTE 240M",
    8: "YCgCo",
    9: "BT.2020",
    10: "BT.2020 (constant luminance)",
}
_FIELDS_SEARCHED = 8
_FIELD_ORDERS = {1: "bottom field first", 2: "top field first"}
_LOOKED_AT = 64  # frames at the beginning of a file that may be such as cannot be decoded
_INDEX_HERE = 4  # BestSource's cachemode: read and write exactly the file that cachepath names
_CACHED_FRAMES = 64  # more than two groups of any bundled model


@dataclass(frozen=True)
class Video:
    """A video file.

    Attributes:
        clip: its frames, at a constant rate: theirs, or the one that most of them have.
        start: time of its first frame on the file's own axis, in seconds; audio refers to that.
        times: when each frame is shown, on the same axis; None where the file does not tell.
        constant: whether they are those of the clip's rate.
        pixel_shape: width over height of a pixel; 1 where the file does not say.
        colours: what it says of them.
        bits: of its samples.
        transparent: whether it has transparency, which is not kept.
        remarks: what the user should know of how it was read, in sentences.
    """

    clip: Any
    start: float
    times: Times | None
    constant: bool
    pixel_shape: Fraction
    colours: Colours
    bits: int
    transparent: bool
    remarks: list[str]


def open_video(
    path: Path,
    constant_rate: Fraction | None = None,
    cache: bool = False,
    any_times: bool = False,
    index: Path | None = None,
) -> Video:
    """Open a video file through BestSource.

    Args:
        path: the file.
        constant_rate: convert to this rate by repeating and dropping frames; frames without times
            follow each other at it.
        cache: keep BestSource's index for the next time, in its usual place.
        any_times: take frames without times too: of files whose frames tell their rate.
        index: or in this file, to whose name BestSource adds the track and its ending.

    Raises:
        CliError: the file cannot be read, or it gives its frames no times and no rate is given.
    """
    if not hasattr(core, "bs"):
        raise CliError("VapourSynth's BestSource is missing; pip install vapoursynth-bestsource")
    streams = streams_of(path)
    track = main_video(streams)
    if track is None:
        raise CliError(f"{path} holds no video")
    arguments: dict[str, Any] = {"track": track, "cachemode": 1 if cache else 0}
    if index is not None:
        arguments |= {"cachemode": _INDEX_HERE, "cachepath": str(index)}
    name = bestsource_path(path)
    times: Times | None
    with temporary_folder() as folder:
        times_file = folder / "times.txt"
        timed = arguments | {"timecodes": str(times_file)}
        if constant_rate is not None:
            timed |= {"fpsnum": constant_rate.numerator, "fpsden": constant_rate.denominator}
        try:
            try:
                clip = core.bs.VideoSource(name, **timed)
                times = np.loadtxt(times_file, comments="#", ndmin=1) / 1000.0
            except vs.Error as error:
                if _NO_TIMES not in str(error):
                    raise
                timed = arguments
                clip, times = core.bs.VideoSource(name, **timed), None
            if index is not None and clip.format is not None:
                # By itself BestSource keeps up to 1 GB of decoded frames for as long as it is open.
                timed = {key: value for key, value in timed.items() if key != "timecodes"}
                clip = core.bs.VideoSource(name, **timed, cachesize=_cache_megabytes(clip))
            properties = first_frame(clip).props
        except vs.Error as error:
            if "write timecode" in str(error):
                raise CliError(NO_TEMPORARY_FILES) from error
            raise CliError(f"{path} cannot be read as video: {error}") from error
    if clip.format is None or clip.width == 0:
        raise CliError(f"{path} changes its format or size on the way, which is not supported")
    remarks: list[str] = []
    constant = True
    if times is None:
        if constant_rate is None and not any_times:
            raise CliError(
                f"{path} does not say when its frames are shown; give their rate with "
                "--constant-rate"
            )
        clip = _at(clip, constant_rate or Fraction(clip.fps) or _ANY_RATE)
    elif constant_rate is None:
        timing = Timing(times, Fraction(clip.fps))
        stated = None if any_times else _unread_end(path, streams[track], timing)
        if stated is not None:
            remarks.append(
                f"the frames of {path} can be read up to {times[-1]:.1f} s of the {stated:.1f} s "
                "that it states (is it damaged?); what is there is taken"
            )
        rate, times, constant = _rate_of(path, timing, remarks)
        if rate <= 0 and not any_times:
            raise CliError(f"{path} does not state its frame rate; give one with --constant-rate")
        clip = _at(clip, rate or _ANY_RATE)
    sar = (int(properties.get("_SARNum", 1)), int(properties.get("_SARDen", 1)))
    alpha = streams[track].metadata.get("alpha_mode") == "1"
    return Video(
        clip,
        start=0.0 if times is None else float(times[0]),
        times=times,
        constant=constant,
        pixel_shape=Fraction(*sar) if all(n > 0 for n in sar) else Fraction(1),
        colours=Colours.of(properties),
        bits=int(clip.format.bits_per_sample),
        transparent=alpha or _is_transparent(properties),
        remarks=remarks,
    )


def _unread_end(path: Path, stream: Stream, timing: Timing) -> float | None:
    """The second up to which the file states frames that cannot be read; None where none are."""
    stated = stream.duration
    if stated is not None:
        return stated if timing.missing_behind(stated) else None
    stated = stated_end(path)
    if stated is None or not timing.missing_behind(stated):
        return None
    # Or another track is longer than the frames.
    return stated if timing.missing_behind(stated, readable_end(path)) else None


def first_frame(clip: Any) -> Any:
    """The first frame of a clip that can be made. Raises vapoursynth.Error where none is near."""
    for n in range(min(clip.num_frames, _LOOKED_AT) - 1):
        with contextlib.suppress(vs.Error):
            return clip.get_frame(n)
    return clip.get_frame(min(clip.num_frames, _LOOKED_AT) - 1)


def _is_transparent(properties: Mapping[str, Any]) -> bool:
    alpha: Any = properties.get("_Alpha")
    if alpha is None:
        return False
    plane = np.asarray(alpha[0])
    opaque = 1.0 if plane.dtype.kind == "f" else (1 << alpha.format.bits_per_sample) - 1
    return bool((plane < opaque).any())


def _cache_megabytes(clip: Any) -> int:
    """What BestSource's cache takes, for frames that are asked for in order or nearly so."""
    shift = clip.format.subsampling_w + clip.format.subsampling_h
    planes = 1 + (clip.format.num_planes - 1) / 2**shift
    frame: float = clip.width * clip.height * clip.format.bytes_per_sample * planes
    return max(1, math.ceil(_CACHED_FRAMES * frame / 2**20))


def _at(clip: Any, rate: Fraction) -> Any:
    return core.std.AssumeFPS(clip, fpsnum=rate.numerator, fpsden=rate.denominator)


def _rate_of(path: Path, timing: Timing, remarks: list[str]) -> tuple[Fraction, Times, bool]:
    """The rate of a file's frames, their times, and whether these are at that rate."""
    times = timing.times
    rate = timing.rate()
    if rate <= 0 or timing.is_constant(rate):
        return rate, times, True
    usual = timing.usual_rate()
    missing = timing.missing_at_end(usual)
    if missing:
        remarks.append(
            f"{counted(missing)} near the end of {path} cannot be read (is it cut off?); "
            "the last ones follow at once"
        )
        return usual, times[0] + np.arange(times.size) / float(usual), True
    remarks.append(
        f"the frame rate of {path} varies ({timing.range_text()}), and every frame keeps its "
        f"time; --constant-rate {rate_text(usual)} would make it constant"
    )
    return usual, times, False


def interlaced(path: Path, where: str) -> CliError:
    """The error for interlaced video.

    Args:
        path: the file.
        where: which frame it was seen at, and how.
    """
    return CliError(
        f"{path} is interlaced ({where}); make it progressive first, for example: "
        "ffmpeg -i IN -vf bwdif -c:v ffv1 -c:a copy progressive.mkv; --progressive takes its "
        "frames as they are"
    )


def check_progressive(path: Path, clip: Any) -> None:
    """Raise CliError for interlaced video, as frames spread over it say.

    The two fields of an interlaced frame are of different moments, and a frame that is made of them
    has every other line from another one.
    """
    total = clip.num_frames
    for n in sorted({total * k // _FIELDS_SEARCHED for k in range(_FIELDS_SEARCHED)}):
        try:
            properties = clip.get_frame(n).props
        except vs.Error:  # it cannot be decoded; others tell
            continue
        order = _FIELD_ORDERS.get(int(properties.get("_FieldBased", 0)))
        if order is not None:
            raise interlaced(path, f"{order}, frame {n}")


def to_rgb24(clip: Any, unstated: int | None = None) -> tuple[Any, str]:
    """A clip as `to_rgb` makes RGB24 of it."""
    return to_rgb(clip, vs.RGB24, unstated)


def source_form(clip: Any) -> int:
    """The RGB format, by VapourSynth's number, that a source is lowered in: of all its bits."""
    return int(vs.RGB24 if clip.format.bits_per_sample == 8 else vs.RGB48)


def to_low_rate(clip: Any) -> Any:
    """The frames of a low-rate file as RGB24 or RGB30, as they were before they were encoded.

    YUV of 12 bits carries RGB of 10 (`vs_cvrs.carrier.lossless`). Of another file's frames nothing
    is known; they become RGB24, or RGB30 where they have more bits.
    """
    rgb = clip.format.color_family == vs.RGB
    deep = clip.format.bits_per_sample > (8 if rgb else 10)
    return to_rgb(clip, vs.RGB30 if deep else vs.RGB24, BT709)[0]


def to_rgb(clip: Any, form: int, unstated: int | None = None) -> tuple[Any, str]:
    """A clip as full-range RGB, and a sentence about the conversion, empty where there is none.

    Args:
        clip: in any format of VapourSynth.
        form: VapourSynth's number of the RGB format to make.
        unstated: the matrix of a clip that does not state it (H.273); None goes by its size.

    Raises:
        CliError: its first frames cannot be read or VapourSynth cannot convert it.
    """
    if clip.format.id == form:
        return clip, ""
    name, made = clip.format.name, core.get_video_format(form).name
    if clip.format.color_family == vs.RGB:
        rounded = clip.format.bits_per_sample > core.get_video_format(form).bits_per_sample
        remark = f"{name} rounded to {made}." if rounded else ""
        return core.resize.Point(clip, format=form), remark
    with contextlib.suppress(vs.Error):
        matrix = stated_matrix(clip)
        how = "as the file states"
        if matrix is None:
            matrix = unstated or usual_matrix(clip)
            how = "by its size" if unstated is None else "as our own files have"
        subsampled = clip.format.subsampling_w or clip.format.subsampling_h
        resize = core.resize.Bicubic if subsampled else core.resize.Point
        rgb = resize(clip, format=form, matrix_in=matrix, range=1)
        first_frame(rgb)
        return (
            rgb,
            f"{name} converted to {made} with matrix {_MATRICES.get(matrix, matrix)} ({how}).",
        )
    raise CliError(f"the video is {name}, which VapourSynth cannot convert to {made} here")


def stated_matrix(clip: Any) -> int | None:
    """The matrix that a clip's frames state (H.273); None where it states none."""
    stated = int(first_frame(clip).props.get("_Matrix", UNSTATED))
    return None if stated in (UNSTATED, _RESERVED) else stated


def usual_matrix(clip: Any) -> int:
    """The matrix that video of a clip's size usually has, where it is not stated (H.273)."""
    return BT709 if clip.height > _SD_HEIGHT else _BT601


def each_frame(clip: Any) -> Iterator[Any]:
    """A clip's frames in order; None for one that cannot be made, as of a damaged file."""
    n = 0
    while n < clip.num_frames:
        try:
            for frame in clip[n:].frames(close=True):
                n += 1
                yield frame
        except vs.Error:
            n += 1
            yield None


def undecodable(clip: Any) -> tuple[int, ...]:
    """Numbers of the frames that cannot be made."""
    return tuple(n for n, frame in enumerate(each_frame(clip)) if frame is None)


def frame_array(frame: Any) -> npt.NDArray[Any]:
    """An RGB frame as a contiguous (3, height, width)."""
    return np.stack([np.asarray(plane) for plane in frame])
