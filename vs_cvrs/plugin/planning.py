"""The two filters' arguments: from what a script says to a plan for the group filter.

`plan` is what the compiled plugin calls when a script creates a filter. Everything that can be
wrong with the arguments is found here, before the first frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from vs_cvrs import __version__
from vs_cvrs.carrier import mark, stamp
from vs_cvrs.carrier.mark import Message
from vs_cvrs.carrier.stamp import Stamp
from vs_cvrs.checkpoints import zoo
from vs_cvrs.model.refine import MAX_REFINE
from vs_cvrs.plugin.alignment import Alignment
from vs_cvrs.plugin.arguments import Arguments
from vs_cvrs.plugin.clip import FORMATS, Clip, Value, check_clip, frame_type
from vs_cvrs.plugin.damage import Judge
from vs_cvrs.plugin.depths import downsample_bits, low_rate_type, upsample_bits
from vs_cvrs.plugin.frames import FrameType
from vs_cvrs.plugin.grouping import length_of, phase_of, timeline_of
from vs_cvrs.plugin.limits import ENDLESS, MAX_SIDE, check_memory, check_period
from vs_cvrs.plugin.models import check_model, crf_of, open_model, warnings_of
from vs_cvrs.plugin.processing import Downsampler, Processor, Upsampler
from vs_cvrs.plugin.rates import downsample_rate, pair, upsample_rate
from vs_cvrs.plugin.reading import Reader
from vs_cvrs.plugin.selfcheck import MAX_HEADROOM
from vs_cvrs.plugin.sizes import downsample_size, upsample_size
from vs_cvrs.plugin.statements import PROPERTIES_VERSION, Stated
from vs_cvrs.runtime.session import Session
from vs_cvrs.runtime.transfer import cupy_version
from vs_cvrs.timeline import (
    SIZE_MULTIPLE,
    GroupTable,
    Timeline,
    nearest_allowed_sizes,
)

__all__ = [
    "FilterPlan",
    "plan",
    "versions",
]

ReadFrame = Callable[[int], tuple[Mapping[str, Value], bytes]]
"""A frame's CVRS properties, and its samples, plane after plane; an error where it has none."""


@dataclass(frozen=True)
class FilterPlan:
    """What the compiled plugin needs to know of a filter.

    ``rate`` is (0, 0) where it is unknown; then frame durations are multiplied by
    ``duration_factor``. ``index_property`` is the property that gets the frame's number.
    ``first_index`` is the CVRSIndex that source frame 0 must have, or -1 where it is not checked.
    ``largest`` are the frames of the largest group before and after the filter. ``aligns``: the
    processor is asked where each group is. ``endless``: frames behind the end of the source clip
    are errors, and where that is nobody knows.
    """

    table: GroupTable
    largest: tuple[int, int]
    width: int
    height: int
    is_float: bool
    bits: int
    rate: tuple[int, int]
    duration_factor: tuple[int, int]
    processor: Processor
    properties: dict[str, int | str] = field(default_factory=dict)
    aligns: bool = False
    endless: bool = False
    index_property: str = ""
    first_index: int = -1
    warnings: list[str] = field(default_factory=list)


def plan(
    name: str,
    clip: Mapping[str, Value],
    arguments: Mapping[str, Value],
    read_frame: ReadFrame,
) -> FilterPlan:
    """Plan a filter.

    Args:
        name: "Downsample" or "Upsample".
        clip: width, height, frames, rate_num, rate_den, is_constant, is_rgb, is_float, bits and
            format_name of the source clip.
        arguments: the script's, by their names in the filter's signature.
        read_frame: reads a frame of the source clip.

    Raises:
        ValueError, OSError, RuntimeError: with one sentence for the user.
    """
    source = check_clip(clip)
    given = Arguments(arguments)
    if name == "Downsample":
        return _plan_downsample(source, given)
    stamps = given.number("stamp", 0, 1) != 0
    stated = None
    if not given.say_all(source.bits):
        properties, samples = read_frame(0)
        stated = Stated.read(properties)
        if stated is None and stamps:
            stated = Stated.of_stamp(source, samples)
        if stated is None and stamps:
            stated = Stated.of_marks(evidence(source, read_frame), source.width, source.height)
    return _plan_upsample(source, given, stated, stamps)


def evidence(clip: Clip, read_frame: ReadFrame) -> list[mark.Evidence]:
    """What the first frames of a clip say of marks."""
    if (clip.is_float, clip.bits) not in FORMATS or clip.is_float:
        return []
    if not mark.fits(clip.width, clip.height):
        return []
    kind = frame_type(clip)
    found = []
    for n in range(min(mark.SEARCHED, clip.frames)):
        frame = np.frombuffer(read_frame(n)[1], kind.dtype).reshape(3, clip.height, clip.width)
        found.append(mark.read(frame))
    return found


def versions() -> dict[str, list[str]]:
    """What ``core.cvrs.Version()`` gives."""
    devices = ["cpu"]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(count)]
    return {
        "plugin": [__version__],
        "models": [f"{name} {zoo.checksum(name)}" for name in zoo.names()],
        "torch": [torch.__version__],
        "cupy": [cupy_version() or "absent"],
        "devices": devices,
    }


def _plan_downsample(clip: Clip, given: Arguments) -> FilterPlan:
    ratio, low_rate = downsample_rate(clip, given)
    low_width, low_height, scale = downsample_size(clip, given)
    session = open_model(given, ratio, scale)
    timeline = timeline_of(
        given, session, ratio, (clip.height, clip.width), (low_height, low_width)
    )
    check_model(session, ratio, (low_width, low_height), (clip.width, clip.height))
    lows = timeline.low_count(clip.frames)
    check_period(timeline, lows)
    most = min(timeline.most_high(), timeline.high_begin(lows)), min(timeline.group_length, lows)
    source = frame_type(clip)
    output = low_rate_type(downsample_bits(clip, given), low_height, low_width)
    check = bool(given.number("check", 0, 1))
    headroom = given.number("headroom", 0, MAX_HEADROOM)
    if headroom is None:
        headroom = MAX_HEADROOM
    elif not check:
        raise ValueError("headroom is for check=1, which finds out where it helps")
    refine = given.number("refine", 0, MAX_REFINE) or 0
    if refine and not session.model.refines:
        raise ValueError(
            "refine is for models of the kinds lite and lite-any, and model "
            f"{session.name} is of the kind {session.model.architecture}"
        )
    crf = crf_of(given, session)
    if check and crf is not None:
        raise ValueError(
            "check=1 knows what comes back through files without loss, and model "
            f"{session.name} is for those with loss"
        )
    check_memory(session, most, source, output, restored=check, refined=refine > 0)
    table = timeline.downsample_table(clip.frames)
    high_rate = pair(clip.rate)
    every: Stamp | None = None
    if given.number("stamp", 0, 1) != 0 and stamp.fits(low_width, low_height):
        every = Stamp(
            ratio=ratio,
            rate=clip.rate,
            width=clip.width,
            height=clip.height,
            length=clip.frames,
            group_length=timeline.group_length,
            index=0,
            checksum=session.checksum,
        )
    message: Message | None = None
    marked = given.number("stamp", 0, 1) != 0 and mark.fits(low_width, low_height)
    if marked and session.model.outlives_loss:
        message = Message(
            ratio=ratio,
            group_length=timeline.group_length,
            model=mark.model_id(session.checksum),
            length=clip.frames,
            excess=(low_width - clip.width, low_height - clip.height),
        )
    return FilterPlan(
        table=table,
        largest=most,
        width=low_width,
        height=low_height,
        is_float=False,
        bits=output.bits,
        rate=pair(low_rate),
        duration_factor=pair(ratio),
        processor=Downsampler(
            session,
            source,
            output,
            timeline,
            clip.frames,
            every,
            check,
            headroom,
            refine,
            crf,
            message,
        ),
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
            "CVRSBits": output.bits,
            "CVRSModel": session.name,
            "CVRSChecksum": session.checksum,
            "CVRSStamped": int(every is not None),
        },
        index_property="CVRSIndex",
        warnings=warnings_of(given, session),
    )


def _plan_upsample(clip: Clip, given: Arguments, stated: Stated | None, stamps: bool) -> FilterPlan:
    for side, size in (("width", clip.width), ("height", clip.height)):
        if size % SIZE_MULTIPLE:
            below, above = nearest_allowed_sizes(size)
            raise ValueError(
                f"the clip's {side} must be a multiple of {SIZE_MULTIPLE}, got {size}; "
                f"nearest: {below} and {above}"
            )
    bits = upsample_bits(clip, given, stated)
    ratio, high_rate = upsample_rate(clip, given, stated)
    width, height, scale = upsample_size(clip, given, stated)
    session = open_model(given, ratio, scale, stated)
    timeline = timeline_of(
        given, session, ratio, (height, width), (clip.height, clip.width), stated
    )
    phase = phase_of(given, timeline, stated)
    length = length_of(given, timeline, clip.frames, phase, stated)
    asked = (given.factor(), given.rate(), given.scale())
    sides = (given.number(side, 1, MAX_SIDE) for side in ("width", "height"))
    if stated is None and not any((*asked, *sides)):
        raise ValueError(
            "nothing tells what is to be restored: the clip's first frames have no CVRS "
            "properties, stamps or marks, and neither a rate or a factor nor a size is given"
        )
    check_model(session, ratio, (clip.width, clip.height), (width, height))
    source = frame_type(clip)
    output = FrameType(source.dtype, clip.bits, height, width)
    stamped = stamps and (stamp.fits(clip.width, clip.height) if stated is None else stated.stamped)
    strict = bool(given.number("strict", 0, 1))
    if strict and not stamped:
        raise ValueError("strict=1 needs frames with stamps, and this clip has none to check")
    message = _marks_of(clip, session, timeline, stated) if stamps else None
    # Of a clip without any of them a group has what is there; else it may be found in any part.
    found = stamped or message is not None
    there = timeline.group_length if found else phase % timeline.group_length + clip.frames
    ahead = session.model.looks_ahead
    endless = clip.frames >= ENDLESS
    # Of a damaged group the frame behind it is looked at too.
    behind = max(ahead, int(stamped and not endless))
    most = min(timeline.group_length, there) + behind, timeline.most_high()
    check_memory(session, most, source, output)
    table = timeline.upsample_table(clip.frames, phase, length)
    judge = Judge(timeline, session.checksum, (clip.height, clip.width), output)
    reader: Reader | None = None
    if found or ahead > 0:
        alignment = Alignment(timeline, clip.frames, phase, table.output_frames, ahead, endless)
        # A phase is known of clips that Downsample made.
        ours = stated is not None or given.number("phase", 0, 2**31 - 1) is not None
        reader = Reader(judge, alignment, stamped, message, ours)
    return FilterPlan(
        table=table,
        largest=most,
        width=width,
        height=height,
        is_float=clip.is_float,
        bits=clip.bits,
        rate=pair(high_rate),
        duration_factor=pair(1 / ratio),
        processor=Upsampler(session, source, output, timeline, reader, judge, strict, bits),
        aligns=reader is not None,
        endless=endless,
        first_index=stated.index if stated and stated.has_properties and not stamped else -1,
        warnings=warnings_of(given, session),
    )


def _marks_of(
    clip: Clip, session: Session, timeline: Timeline, stated: Stated | None
) -> Message | None:
    """What marks say in a clip that this model restores; None where there are none to be read."""
    if not session.model.outlives_loss or not mark.fits(clip.width, clip.height):
        return None
    if stated is not None and stated.has_properties and not stated.stamped:
        return None  # Downsample wrote none
    return Message(timeline.ratio, timeline.group_length, mark.model_id(session.checksum))
