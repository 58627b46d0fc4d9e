"""How a clip's frames fall into groups, where it begins in one, and where it ends."""

from __future__ import annotations

from fractions import Fraction

from vs_cvrs.plugin.arguments import Arguments
from vs_cvrs.plugin.limits import MAX_FRAMES, check_frames
from vs_cvrs.plugin.statements import Stated
from vs_cvrs.runtime.session import Session
from vs_cvrs.timeline import (
    MAX_GROUP_LENGTH,
    Timeline,
)

__all__ = [
    "length_of",
    "phase_of",
    "timeline_of",
]


def timeline_of(
    given: Arguments,
    session: Session,
    ratio: Fraction,
    high: tuple[int, int],
    low: tuple[int, int],
    stated: Stated | None = None,
) -> Timeline:
    """The grouping for a ratio, as the script, the clip or the model want it.

    ``high`` and ``low`` are the height and width of the frames of either rate.
    """
    length = given.number("gop", 1, MAX_GROUP_LENGTH)
    if stated is not None:
        stated.agree("gop", length, stated.group_length)
        length = stated.group_length
    return Timeline(ratio, length or session.model.suited_group_length(ratio, high, low))


def phase_of(given: Arguments, timeline: Timeline, stated: Stated | None) -> int:
    """The low-rate index of the clip's first frame, as far as it is known."""
    phase = given.number("phase", 0, 2**31 - 1)
    if stated is None:
        return phase or 0
    # A phase may be given within its group or from the start of the untrimmed clip.
    if phase is not None and phase != stated.index % timeline.group_length:
        stated.agree("phase", phase, stated.index)
    return stated.index


def length_of(
    given: Arguments, timeline: Timeline, low_frames: int, phase: int, stated: Stated | None
) -> int:
    """How many frames to restore; 0: all that the clip's frames span."""
    span = timeline.high_begin(phase + low_frames) - timeline.high_begin(phase)
    length = given.number("length", 1, MAX_FRAMES)
    if stated is not None and stated.length is not None:
        wanted = timeline.restored_count(low_frames, phase, stated.length)
        if wanted < 1:
            raise ValueError(
                f"{stated.where} CVRSIndex {stated.index} and CVRSLength {stated.length} "
                "leave nothing to restore"
            )
        sent = timeline.low_count(stated.length) - phase
        # Stamps and marks tell in every frame where it is from.
        if low_frames > sent and stated.has_properties and not stated.stamped:
            raise ValueError(
                f"the clip has {low_frames} frames, but the {stated.where} of its first frame "
                f"state that {sent} are left of its clip: trim it, or give clips one by one"
            )
        stated.agree("length", length, wanted)
        length = wanted
    check_frames(length or span, timeline, low_frames)
    return length or 0  # more than these frames span is an error in upsample_table
