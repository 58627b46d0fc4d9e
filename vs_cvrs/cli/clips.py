"""Video files as VapourSynth clips, and clips as RGB."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import vapoursynth as vs

from vs_cvrs.cli.running import NO_TEMPORARY_FILES, CliError, temporary_folder

__all__ = [
    "Video",
    "core",
    "frame_array",
    "open_video",
    "stated_matrix",
    "to_rgb24",
    "usual_matrix",
]

core = vs.core

_UNSTATED, _RESERVED = 2, 3
_BT709, _BT601 = 1, 6
_ROUNDING = 0.00101  # seconds: two times, each rounded to a millisecond
_SD_HEIGHT = 576


@dataclass(frozen=True)
class Video:
    """A video file.

    Attributes:
        clip: its frames, at a constant rate.
        start: time of its first frame on the file's own axis, in seconds; audio refers to that.
        pixel_shape: width over height of a pixel; 1 where the file does not say.
        primaries, transfer: H.273 numbers; 2 is unstated.
    """

    clip: Any
    start: float
    pixel_shape: Fraction
    primaries: int
    transfer: int


def open_video(path: Path, constant_rate: Fraction | None = None, cache: bool = False) -> Video:
    """Open a video file through BestSource.

    Args:
        path: the file.
        constant_rate: convert to this rate by repeating and dropping frames.
        cache: keep BestSource's index for the next time, in its usual place.

    Raises:
        CliError: the file cannot be read, or its frame rate varies and no rate is given.
    """
    if not path.is_file():
        raise CliError(f"{path} is not a file")
    if not hasattr(core, "bs"):
        raise CliError("VapourSynth's BestSource is missing; pip install vapoursynth-bestsource")
    arguments: dict[str, Any] = {"cachemode": 1 if cache else 0}
    if constant_rate is not None:
        arguments |= {"fpsnum": constant_rate.numerator, "fpsden": constant_rate.denominator}
    with temporary_folder() as folder:
        times_file = folder / "times.txt"
        try:
            clip = core.bs.VideoSource(str(path), timecodes=str(times_file), **arguments)
            properties = dict(clip.get_frame(0).props)
        except vs.Error as error:
            if "write timecode" in str(error):
                raise CliError(NO_TEMPORARY_FILES) from error
            raise CliError(f"{path} cannot be read as video: {error}") from error
        times = np.loadtxt(times_file, comments="#", ndmin=1) / 1000.0
    if clip.format is None or clip.width == 0:
        raise CliError(f"{path} changes its format or size on the way, which is not supported")
    if constant_rate is None:
        rate = _exact_rate(times, Fraction(clip.fps))
        _check_rate(path, times, rate)
        clip = core.std.AssumeFPS(clip, fpsnum=rate.numerator, fpsden=rate.denominator)
    sar = (int(properties.get("_SARNum", 1)), int(properties.get("_SARDen", 1)))
    return Video(
        clip,
        start=float(times[0]),
        pixel_shape=Fraction(*sar) if all(n > 0 for n in sar) else Fraction(1),
        primaries=int(properties.get("_Primaries", _UNSTATED)),
        transfer=int(properties.get("_Transfer", _UNSTATED)),
    )


def _off(times: npt.NDArray[np.float64], rate: Fraction) -> float:
    """By how many seconds a frame is off its place at most."""
    places = times[0] + np.arange(times.size) / float(rate)
    return float(np.abs(times - places).max())


def _exact_rate(times: npt.NDArray[np.float64], stated: Fraction) -> Fraction:
    """The simple rate that the frames' times stand for, else the stated one.

    Matroska rounds times to milliseconds, and BestSource takes the mean of what it finds: it gives
    15 fps as 44000/2933. Multiples of 1/2 and of 500/1001 whose grid is within that rounding of
    every frame are what was meant.
    """
    if times.size < 2 or stated <= 0:
        return stated
    units = (Fraction(1, 2), Fraction(500, 1001))
    simple = [unit * round(stated / unit) for unit in units]
    if stated in simple:
        return stated
    fitting = [rate for rate in simple if rate > 0 and _off(times, rate) <= _ROUNDING]
    return min(fitting, key=lambda rate: _off(times, rate), default=stated)


def _check_rate(path: Path, times: npt.NDArray[np.float64], rate: Fraction) -> None:
    """Raise CliError where frames are off their places at a constant rate by half a frame."""
    if rate <= 0:
        raise CliError(f"{path} does not state its frame rate; give one with --constant-rate")
    if times.size < 2:
        return
    if _off(times, rate) > 0.5 / float(rate):
        steps = np.diff(times) * 1000
        raise CliError(
            f"{path} has a variable frame rate (frames last {steps.min():.4g} to "
            f"{steps.max():.4g} ms); --constant-rate {round(1000 / float(np.median(steps)), 3):g} "
            "repeats and drops frames to make it constant"
        )


def to_rgb24(clip: Any, unstated: int | None = None) -> tuple[Any, str]:
    """A clip as full-range RGB24, and a sentence about the conversion, empty for RGB24.

    Args:
        clip: in any format of VapourSynth.
        unstated: the matrix of a clip that does not state it (H.273); None goes by its size.

    Raises:
        CliError: its first frame cannot be read or VapourSynth cannot convert it.
    """
    if clip.format.id == vs.RGB24:
        return clip, ""
    name = clip.format.name
    if clip.format.color_family == vs.RGB:
        return core.resize.Point(clip, format=vs.RGB24), f"{name} rounded to RGB24."
    with contextlib.suppress(vs.Error):
        matrix = stated_matrix(clip)
        how = "as the file states"
        if matrix is None:
            matrix = unstated or usual_matrix(clip)
            how = "by its size" if unstated is None else "as our own files have"
        subsampled = clip.format.subsampling_w or clip.format.subsampling_h
        resize = core.resize.Bicubic if subsampled else core.resize.Point
        rgb = resize(clip, format=vs.RGB24, matrix_in=matrix, range=1)
        rgb.get_frame(0)
        return (
            rgb,
            f"{name} converted to RGB24 with matrix {vs.MatrixCoefficients(matrix).name} ({how}).",
        )
    raise CliError(f"the video is {name}, which VapourSynth cannot convert to RGB24 here")


def stated_matrix(clip: Any) -> int | None:
    """The matrix that a clip's first frame states (H.273); None where it states none."""
    stated = int(clip.get_frame(0).props.get("_Matrix", _UNSTATED))
    return None if stated in (_UNSTATED, _RESERVED) else stated


def usual_matrix(clip: Any) -> int:
    """The matrix that video of a clip's size usually has, where it is not stated (H.273)."""
    return _BT709 if clip.height > _SD_HEIGHT else _BT601


def frame_array(frame: Any) -> npt.NDArray[np.uint8]:
    """An RGB24 frame as a contiguous (3, height, width)."""
    return np.stack([np.asarray(plane) for plane in frame])
