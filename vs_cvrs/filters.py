"""The two filters' arguments: from what a script says to a plan for the group filter.

`plan` is what the compiled plugin calls when a script creates a filter. Everything that can be
wrong with the arguments is found here, before the first frame.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vs_cvrs import __version__, checkpoint, stamp, zoo
from vs_cvrs.processing import Downsampler, FrameType, Processor, Upsampler, to_levels
from vs_cvrs.session import MAX_MEMORY_RANGE, Session, find_open, free_memory, open_session
from vs_cvrs.stamp import Stamp
from vs_cvrs.timeline import (
    MAX_GROUP_LENGTH,
    SIZE_MULTIPLE,
    GroupTable,
    Timeline,
    choose_group_length,
    low_size,
    nearest_allowed_sizes,
    snap_rate,
    snap_ratio,
)
from vs_cvrs.transfer import cupy_advice, cupy_version
from vs_cvrs.untrusted import shown

__all__ = ["PROPERTIES_VERSION", "FilterPlan", "bundled_name", "plan", "versions"]

PROPERTIES_VERSION = 1
"""CVRSVersion: the meaning of the frame properties that Downsample writes."""

Value = int | float | str

_MAX_FRAMES = 2**24  # three days at 60 fps; the group table takes a few words for each
_MAX_SIDE = 2**15
_MAX_RATE = 2**31 - 1
_FORMATS = {(False, 8), (False, 10), (False, 16), (True, 16), (True, 32)}
_FORMAT_NAMES = "RGB24, RGB30, RGB48, RGBH or RGBS"


@dataclass(frozen=True)
class Clip:
    """What VapourSynth says of a clip. ``rate`` is None where it is unknown or variable."""

    width: int
    height: int
    frames: int
    rate: Fraction | None
    is_float: bool
    bits: int


@dataclass(frozen=True)
class FilterPlan:
    """What the compiled plugin needs to know of a filter.

    ``rate`` is (0, 0) where it is unknown; then frame durations are multiplied by
    ``duration_factor``. ``index_property`` is the property that gets the frame's number.
    ``first_index`` is the CVRSIndex of source frame 0, or -1 where it has none.
    """

    table: GroupTable
    width: int
    height: int
    is_float: bool
    bits: int
    rate: tuple[int, int]
    duration_factor: tuple[int, int]
    processor: Processor
    properties: dict[str, int | str] = field(default_factory=dict)
    index_property: str = ""
    first_index: int = -1
    warnings: list[str] = field(default_factory=list)


def plan(
    name: str,
    clip: Mapping[str, Value],
    arguments: Mapping[str, Value],
    properties: Mapping[str, Value],
    first_frame: bytes = b"",
) -> FilterPlan:
    """Plan a filter.

    Args:
        name: "Downsample" or "Upsample".
        clip: width, height, frames, rate_num, rate_den, is_constant, is_rgb, is_float, bits and
            format_name of the source clip.
        arguments: the script's, by their names in the filter's signature.
        properties: the CVRS properties of the source clip's first frame; Upsample only.
        first_frame: that frame's samples, plane after plane; Upsample only.

    Raises:
        ValueError, OSError, RuntimeError: with one sentence for the user.
    """
    source = _check_clip(clip)
    given = _Arguments(arguments)
    if name == "Downsample":
        return _plan_downsample(source, given)
    stamps = given.number("stamp", 0, 1) != 0
    stated = _Stated.read(properties)
    if stated is None and stamps:
        stated = _Stated.of_stamp(source, first_frame)
    return _plan_upsample(source, given, stated, stamps)


def versions() -> dict[str, list[str]]:
    """What ``core.cvrs.Version()`` gives."""
    devices = ["cpu"]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(count)]
    return {
        "plugin": [__version__],
        "models": [f"{name} {_bundled_checksum(name)}" for name in zoo.names()],
        "torch": [torch.__version__],
        "cupy": [cupy_version() or "absent"],
        "devices": devices,
    }


def bundled_name(checksum: str) -> str | None:
    """The bundled model whose weights have this checksum."""
    return next((name for name in zoo.names() if _bundled_checksum(name) == checksum), None)


@functools.cache
def _bundled_checksum(name: str) -> str:
    return checkpoint.load(zoo.resolve(name, Fraction(1), Fraction(1))).checksum


class _Arguments:
    """A script's arguments, typed and checked one by one."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values

    def number(self, name: str, low: int, high: int) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not low <= int(value) <= high:
            raise ValueError(f"{name} must be {low} to {high}, got {value}")
        return int(value)

    def text(self, name: str) -> str:
        value = str(self._values.get(name, "auto"))
        if not value or "\0" in value:
            raise ValueError(f"{name} must not be empty or hold a zero character")
        return value

    def rate(self) -> Fraction | None:
        """The target rate, from fps or fps_num and fps_den."""
        exact = self._fraction("fps_num", "fps_den")
        fps = self._values.get("fps")
        if fps is None:
            return exact
        if exact is not None:
            raise ValueError("give either fps or fps_num and fps_den, not both")
        rate = snap_rate(float(fps))
        if rate.numerator > _MAX_RATE:
            raise ValueError(f"fps must be at most {_MAX_RATE}, got {fps:g}")
        return rate

    def ratio(self, high: Fraction, low: Fraction) -> Fraction:
        """Of the clip's rate and the target rate, whichever is which."""
        return snap_ratio(high / low) if "fps" in self._values else high / low

    def factor(self) -> Fraction | None:
        """The time factor, from factor_num and factor_den."""
        factor = self._fraction("factor_num", "factor_den")
        if factor is not None and factor < 1:
            raise ValueError(f"the time factor must be at least 1, got {factor}")
        return factor

    def scale(self) -> Fraction | None:
        value = self._values.get("scale")
        if value is None:
            return None
        if not 1 <= float(value) <= _MAX_SIDE:
            raise ValueError(f"scale must be 1 to {_MAX_SIDE}, got {value:g}")
        return Fraction(float(value)).limit_denominator(1000)

    def _fraction(self, numerator: str, denominator: str) -> Fraction | None:
        num = self.number(numerator, 1, _MAX_RATE)
        den = self.number(denominator, 1, _MAX_RATE)
        if num is None:
            if den is not None:
                raise ValueError(f"{denominator} is given without {numerator}")
            return None
        return Fraction(num, den or 1)


@dataclass(frozen=True)
class _Stated:
    """What the frame properties or the stamps of a clip made by Downsample state.

    Rate None: unknown. ``where`` names the one or the other.
    """

    factor: Fraction
    rate: Fraction | None
    width: int
    height: int
    length: int
    group_length: int
    index: int
    model: str
    checksum: str
    stamped: bool
    where: str

    def agree(self, what: str, given: Any, stated: Any) -> None:
        """Raise ValueError where an argument contradicts what is stated."""
        if given is not None and stated is not None and given != stated:
            raise ValueError(
                f"{what} is given as {given}, but the clip's {self.where} state {stated}"
            )

    @classmethod
    def of_stamp(cls, clip: Clip, first_frame: bytes) -> _Stated | None:
        """None where the first frame has no stamp."""
        if not first_frame or (clip.is_float, clip.bits) not in _FORMATS:
            return None
        kind = _frame_type(clip)
        frame = np.frombuffer(first_frame, kind.dtype).reshape(3, clip.height, clip.width)
        found = stamp.read(to_levels(frame, kind))
        if found is None:
            return None
        return cls(
            factor=found.ratio,
            rate=found.rate,
            width=found.width,
            height=found.height,
            length=found.length,
            group_length=found.group_length,
            index=found.index,
            model="",
            checksum=found.checksum,
            stamped=True,
            where="stamps",
        )

    @classmethod
    def read(cls, properties: Mapping[str, Value]) -> _Stated | None:
        """None where there are none. Raises ValueError for ones that cannot be right."""
        version = properties.get("CVRSVersion")
        if version is None:
            return None
        if version != PROPERTIES_VERSION:
            raise ValueError(
                f"the clip's frame properties are of version {shown(repr(version))}, "
                f"this plugin reads version {PROPERTIES_VERSION}"
            )

        def number(name: str, low: int) -> int:
            value = properties.get(name)
            if not isinstance(value, int) or value < low:
                raise ValueError(
                    f"frame property {name} must be {low} or more, got {shown(repr(value))}"
                )
            return value

        rate_num, rate_den = number("CVRSRateNum", 0), number("CVRSRateDen", 0)
        return cls(
            factor=Fraction(number("CVRSFactorNum", 1), number("CVRSFactorDen", 1)),
            rate=Fraction(rate_num, rate_den) if rate_num and rate_den else None,
            width=number("CVRSWidth", 1),
            height=number("CVRSHeight", 1),
            length=number("CVRSLength", 1),
            group_length=number("CVRSGroupLength", 1),
            index=number("CVRSIndex", 0),
            model=shown(str(properties.get("CVRSModel"))),
            checksum=shown(str(properties.get("CVRSChecksum"))),
            stamped=bool(properties.get("CVRSStamped")),
            where="frame properties",
        )


def _plan_downsample(clip: Clip, given: _Arguments) -> FilterPlan:
    ratio, low_rate = _downsample_rate(clip, given)
    low_width, low_height, scale = _downsample_size(clip, given)
    session = _open(given, ratio, scale)
    timeline = _timeline(given, session, ratio)
    _check_model(session, ratio, (low_width, low_height), (clip.width, clip.height))
    table = timeline.downsample_table(clip.frames)
    source = _frame_type(clip)
    output = FrameType(np.dtype(np.uint8), 8, low_height, low_width)
    _check_memory(session, table, source, output)
    high_rate = _pair(clip.rate)
    mark: Stamp | None = None
    if given.number("stamp", 0, 1) != 0 and stamp.fits(low_width, low_height):
        mark = Stamp(
            ratio=ratio,
            rate=clip.rate,
            width=clip.width,
            height=clip.height,
            length=clip.frames,
            group_length=timeline.group_length,
            index=0,
            checksum=session.checksum,
        )
    return FilterPlan(
        table=table,
        width=low_width,
        height=low_height,
        is_float=False,
        bits=8,
        rate=_pair(low_rate),
        duration_factor=_pair(ratio),
        processor=Downsampler(session, source, output, table, mark),
        properties={
            "CVRSVersion": PROPERTIES_VERSION,
            "CVRSFactorNum": ratio.numerator,
            "CVRSFactorDen": ratio.denominator,
            "CVRSRateNum": high_rate[0],
            "CVRSRateDen": high_rate[1],
            "CVRSWidth": clip.width,
            "CVRSHeight": clip.height,
            "CVRSLength": clip.frames,
            "CVRSGroupLength": timeline.group_length,
            "CVRSModel": session.name,
            "CVRSChecksum": session.checksum,
            "CVRSStamped": int(mark is not None),
        },
        index_property="CVRSIndex",
        warnings=_warnings(given, session),
    )


def _plan_upsample(
    clip: Clip, given: _Arguments, stated: _Stated | None, stamps: bool
) -> FilterPlan:
    for side, size in (("width", clip.width), ("height", clip.height)):
        if size % SIZE_MULTIPLE:
            below, above = nearest_allowed_sizes(size)
            raise ValueError(
                f"the clip's {side} must be a multiple of {SIZE_MULTIPLE}, got {size}; "
                f"nearest: {below} and {above}"
            )
    ratio, high_rate = _upsample_rate(clip, given, stated)
    width, height, scale = _upsample_size(clip, given, stated)
    session = _open(given, ratio, scale, stated)
    timeline = _timeline(given, session, ratio, stated)
    _check_model(session, ratio, (clip.width, clip.height), (width, height))
    phase = _phase(given, timeline, stated)
    length = _length(given, timeline, clip.frames, phase, stated)
    table = timeline.upsample_table(clip.frames, phase, length)
    source = _frame_type(clip)
    output = FrameType(source.dtype, clip.bits, height, width)
    _check_memory(session, table, source, output)
    stamped = stamps and (stamp.fits(clip.width, clip.height) if stated is None else stated.stamped)
    strict = bool(given.number("strict", 0, 1))
    if strict and not stamped:
        raise ValueError("strict=1 needs frames with stamps, and this clip has none to check")
    return FilterPlan(
        table=table,
        width=width,
        height=height,
        is_float=clip.is_float,
        bits=clip.bits,
        rate=_pair(high_rate),
        duration_factor=_pair(1 / ratio),
        processor=Upsampler(session, source, output, table, timeline, phase, stamped, strict),
        first_index=stated.index if stated else -1,
        warnings=_warnings(given, session),
    )


def _check_clip(clip: Mapping[str, Value]) -> Clip:
    name = clip["format_name"]
    if not clip["is_constant"]:
        raise ValueError("the clip's format and size must be constant, got a variable one")
    is_float, bits = bool(clip["is_float"]), int(clip["bits"])
    if not clip["is_rgb"]:
        raise ValueError(
            f"the clip must be {_FORMAT_NAMES}, got {name}; convert it with "
            'core.resize.Bicubic(clip, format=vs.RGB24), and matrix_in_s="709" where the clip '
            "does not state its matrix"
        )
    if (is_float, bits) not in _FORMATS:
        raise ValueError(f"the clip must be {_FORMAT_NAMES}, got {name}")
    width, height = int(clip["width"]), int(clip["height"])
    if max(width, height) > _MAX_SIDE:
        raise ValueError(
            f"the clip must be at most {_MAX_SIDE} wide and high, got {width}x{height}"
        )
    _check_frames("source", int(clip["frames"]))
    num, den = int(clip["rate_num"]), int(clip["rate_den"])
    rate = Fraction(num, den) if num > 0 and den > 0 else None
    return Clip(width, height, int(clip["frames"]), rate, is_float, bits)


def _downsample_rate(clip: Clip, given: _Arguments) -> tuple[Fraction, Fraction | None]:
    """High over low rate, and the low rate where it is known."""
    factor, target = _one_target(given)
    if target is not None:
        if clip.rate is None:
            raise ValueError(_UNKNOWN_RATE)
        factor = given.ratio(clip.rate, target)
        if factor < 1:
            raise ValueError(f"the target rate {target} is above the clip's rate {clip.rate}")
    ratio = factor or Fraction(1)
    low_rate = None if clip.rate is None else clip.rate / ratio
    _check_rate(low_rate)
    return ratio, low_rate


def _upsample_rate(
    clip: Clip, given: _Arguments, stated: _Stated | None
) -> tuple[Fraction, Fraction | None]:
    """High over low rate, and the high rate where it is known."""
    factor, target = _one_target(given)
    if stated is not None:
        by_properties = stated.where == "frame properties"
        contradicting = clip.rate is not None and clip.rate * stated.factor != stated.rate
        # Readers make out a file's rate from rounded times: only stamps have the exact one.
        if by_properties and contradicting and stated.rate is not None:
            raise ValueError(
                f"the clip's rate {clip.rate} contradicts its frame properties, which state "
                f"{stated.rate / stated.factor if stated.rate else None}"
            )
        stated.agree("the time factor", factor, stated.factor)
        if target is not None and stated.rate is not None:
            if given.ratio(target, stated.rate) != 1:
                stated.agree("the target rate", target, stated.rate)
            factor = stated.factor
        elif target is None:
            factor = stated.factor
    if target is not None and factor is None:
        if clip.rate is None:
            raise ValueError(_UNKNOWN_RATE)
        factor = given.ratio(target, clip.rate)
        if factor < 1:
            raise ValueError(f"the target rate {target} is below the clip's rate {clip.rate}")
        if stated is not None:
            stated.agree("the time factor", factor, stated.factor)
    ratio = factor or Fraction(1)
    high_rate = clip.rate * ratio if clip.rate is not None else target
    if stated is not None and stated.rate is not None:
        high_rate = stated.rate
    _check_rate(high_rate)
    return ratio, high_rate


_UNKNOWN_RATE = (
    "the clip's frame rate is unknown: give factor_num and factor_den instead of a rate, or state "
    "the rate with core.std.AssumeFPS"
)


def _one_target(given: _Arguments) -> tuple[Fraction | None, Fraction | None]:
    """The wanted time factor and target rate, of which a script may give one."""
    factor, target = given.factor(), given.rate()
    if factor is not None and target is not None:
        raise ValueError("give either a rate or a time factor, not both")
    return factor, target


def _check_rate(rate: Fraction | None) -> None:
    if rate is not None and max(rate.numerator, rate.denominator) > _MAX_RATE:
        raise ValueError(f"the resulting frame rate {rate} is beyond {_MAX_RATE} in its terms")


def _downsample_size(clip: Clip, given: _Arguments) -> tuple[int, int, Fraction]:
    """Low-rate width and height, and the scale they stand for."""
    scale = given.scale() or Fraction(1)
    sizes = []
    explicit = False
    for side, high in (("width", clip.width), ("height", clip.height)):
        low = given.number(side, 1, _MAX_SIDE)
        if low is None:
            sizes.append(low_size(high, scale))
            continue
        explicit = True
        if low % SIZE_MULTIPLE:
            below, above = nearest_allowed_sizes(low)
            raise ValueError(
                f"{side} must be a multiple of {SIZE_MULTIPLE}, got {low}; "
                f"nearest: {below} and {above}"
            )
        largest = low_size(high, Fraction(1))
        if low > largest:
            raise ValueError(f"{side} must be at most {largest} for this clip, got {low}")
        sizes.append(low)
    low_width, low_height = sizes
    if explicit:
        scale = _scale_between((low_width, low_height), (clip.width, clip.height))
    return low_width, low_height, scale


def _upsample_size(
    clip: Clip, given: _Arguments, stated: _Stated | None
) -> tuple[int, int, Fraction]:
    """Restored width and height, and the scale they stand for."""
    scale = given.scale()
    sizes = []
    for side, low, stated_size in (
        ("width", clip.width, stated.width if stated else None),
        ("height", clip.height, stated.height if stated else None),
    ):
        high = given.number(side, 1, _MAX_SIDE)
        if high is not None:
            if stated is not None:
                stated.agree(side, high, stated_size)
        elif stated_size is not None:
            high = stated_size
            if scale is not None and low_size(high, scale) != low:
                raise ValueError(
                    f"scale {float(scale):g} makes {side} {round(low * scale)}, but the clip's "
                    f"{stated.where if stated else ''} state {stated_size}"
                )
        else:
            high = round(low * (scale or 1))
        if low_size(high, Fraction(1)) < low or high > _MAX_SIDE:
            smallest = max(1, low - SIZE_MULTIPLE + 1)
            raise ValueError(f"{side} must be {smallest} to {_MAX_SIDE} for this clip, got {high}")
        sizes.append(high)
    width, height = sizes
    exact = scale is not None and all(
        low_size(high, scale) == low
        for high, low in zip(sizes, (clip.width, clip.height), strict=True)
    )
    if scale is None or not exact:
        scale = _scale_between((clip.width, clip.height), (width, height))
    return width, height, scale


def _scale_between(low: tuple[int, int], high: tuple[int, int]) -> Fraction:
    """The simplest scale that leads from the high-rate size to the low-rate one.

    Sizes are rounded to multiples of 4, so that many scales do (1080 -> 272 is 4, not 3.97). Where
    none does for both axes, it is the exact one of the width.
    """
    exact = Fraction(high[0], low[0])
    for denominator in range(1, 101):
        middle = exact * denominator
        for numerator in {math.floor(middle), math.ceil(middle)}:
            scale = Fraction(numerator, denominator)
            if scale >= 1 and all(low_size(h, scale) == n for h, n in zip(high, low, strict=True)):
                return scale
    return max(exact, Fraction(1))


def _open(
    given: _Arguments, ratio: Fraction, scale: Fraction, stated: _Stated | None = None
) -> Session:
    """The session of the wanted model. With frame properties, the model that they state."""
    model = given.text("model")
    path: Path | None = None
    if model == "auto" and stated is not None:
        path = find_open(stated.checksum)
        if path is None:
            known = stated.model if stated.model in zoo.names() else model
            model = bundled_name(stated.checksum) or known
    if path is None:
        path = zoo.resolve(model, ratio, scale)
    session = open_session(
        path,
        given.text("device"),
        given.text("precision"),
        given.number("max_memory", *MAX_MEMORY_RANGE),
    )
    if stated is not None and session.checksum != stated.checksum:
        raise ValueError(
            f"the clip was made with model {f'{stated.model} ({stated.checksum})'.lstrip()}, "
            f"but the model here is {session.name} ({session.checksum})"
        )
    return session


def _warnings(given: _Arguments, session: Session) -> list[str]:
    unused_gpu = session.device.type == "cpu" and torch.cuda.is_available()
    if given.text("device") != "auto" or not unused_gpu:
        return []
    return [f"works on the CPU, although there is a CUDA device: {cupy_advice()}"]


def _timeline(
    given: _Arguments, session: Session, ratio: Fraction, stated: _Stated | None = None
) -> Timeline:
    length = given.number("gop", 1, MAX_GROUP_LENGTH)
    if stated is not None:
        stated.agree("gop", length, stated.group_length)
        length = stated.group_length
    return Timeline(ratio, length or choose_group_length(ratio, session.model.group_length))


def _check_model(
    session: Session, ratio: Fraction, low: tuple[int, int], high: tuple[int, int]
) -> None:
    """Raise ValueError where a model is made for one ratio or scale and this is another."""
    time, space = session.model.time_factor, session.model.space_factor
    if time is not None and time != ratio:
        raise ValueError(
            f"model {session.name} is made for a time factor of {time}, got {ratio}; "
            f"factor_num={time.numerator}, factor_den={time.denominator} asks for it exactly"
        )
    if space is not None and tuple(low_size(n, space) for n in high) != low:
        raise ValueError(
            f"model {session.name} is made for a scale of {space}, "
            f"got {high[0]}x{high[1]} to {low[0]}x{low[1]}"
        )


def _phase(given: _Arguments, timeline: Timeline, stated: _Stated | None) -> int:
    phase = given.number("phase", 0, 2**31 - 1)
    if stated is None:
        return phase or 0
    # A phase may be given within its group or from the start of the untrimmed clip.
    if phase is not None and phase != stated.index % timeline.group_length:
        stated.agree("phase", phase, stated.index)
    return stated.index


def _length(
    given: _Arguments, timeline: Timeline, low_frames: int, phase: int, stated: _Stated | None
) -> int:
    begin = timeline.high_begin(phase)
    span = timeline.high_begin(phase + low_frames) - begin
    length = given.number("length", 1, _MAX_FRAMES)
    if stated is not None:
        left = min(span, stated.length - begin)
        if left < 1:
            raise ValueError(
                f"{stated.where} CVRSIndex {stated.index} and CVRSLength {stated.length} "
                "leave nothing to restore"
            )
        stated.agree("length", length, left)
        sent = timeline.low_count(stated.length) - phase
        if low_frames > sent:
            raise ValueError(
                f"the clip has {low_frames} frames, but the {stated.where} of its first frame "
                f"state that {sent} are left of its clip: trim it, or give clips one by one"
            )
        length = left
    _check_frames("restored", length or span)
    return length or 0  # more than these frames span is an error in upsample_table


def _check_frames(which: str, frames: int) -> None:
    if frames > _MAX_FRAMES:
        raise ValueError(
            f"the {which} clip must have at most {_MAX_FRAMES} frames, got {frames}; core.std.Trim "
            "cuts clips of players, which state no length"
        )


def _check_memory(
    session: Session, table: GroupTable, source: FrameType, output: FrameType
) -> None:
    """Raise ValueError where a group takes more memory than is free.

    There would be no error later: the system hands out memory that it does not have, and ends the
    process that uses it.
    """
    pixels = [
        _longest(begins, head, tail) * kind.height * kind.width
        for begins, head, tail, kind in (
            (table.source_begin, table.source_head, table.source_tail, source),
            (table.output_begin, table.output_head, table.output_tail, output),
        )
    ]
    stored = [3 * n * kind.dtype.itemsize for n, kind in zip(pixels, (source, output), strict=True)]
    # Two equal group buffers, and frames of two groups on either side of the filter.
    needed = 2 * max(stored) + 2 * sum(stored)
    if session.device.type == "cpu":
        needed += 2 * 4 * 3 * sum(pixels)  # before and after a stage, as 32-bit numbers
    free = free_memory()
    if needed > free:
        raise ValueError(
            f"a group of frames takes about {needed / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB "
            "of memory are free: use a smaller gop, time factor or size"
        )


def _longest(begins: npt.NDArray[np.int64], head: int, tail: int) -> int:
    lengths = np.diff(begins).tolist()
    lengths[0] += head
    lengths[-1] += tail
    return int(max(lengths))


def _pair(value: Fraction | None) -> tuple[int, int]:
    return (0, 0) if value is None else (value.numerator, value.denominator)


def _frame_type(clip: Clip) -> FrameType:
    return FrameType(_sample_type(clip), clip.bits, clip.height, clip.width)


def _sample_type(clip: Clip) -> np.dtype[Any]:
    if clip.is_float:
        return np.dtype(np.float16 if clip.bits == 16 else np.float32)
    return np.dtype(np.uint8 if clip.bits == 8 else np.uint16)
