"""What a filter may be asked to do: the ranges of its arguments, and what fits into memory."""

from __future__ import annotations

from vs_cvrs.plugin.frames import FrameType
from vs_cvrs.runtime.memory import free_memory
from vs_cvrs.runtime.session import Session
from vs_cvrs.timeline import Timeline

__all__ = [
    "ENDLESS",
    "MAX_FRAMES",
    "MAX_RATE",
    "MAX_SIDE",
    "check_frames",
    "check_memory",
    "check_period",
]

MAX_FRAMES = 2**31 - 1
"""VapourSynth's own limit."""


ENDLESS = MAX_FRAMES // 16
"""A clip of so many frames has no end that is known. Players state such lengths, as they read while
they play."""


_MAX_TABLE = 2**24
"""High-rate frames after which groups must repeat: the group table takes some words for each."""


MAX_SIDE = 2**15


MAX_RATE = 2**31 - 1


def check_frames(frames: int, timeline: Timeline, low_frames: int) -> None:
    """Raise ValueError for a restored clip, or a group table, that is too long."""
    if frames > MAX_FRAMES:
        raise ValueError(
            f"the restored clip must have at most {MAX_FRAMES} frames, got {frames}; {_TRIM}"
        )
    check_period(timeline, low_frames)


def check_period(timeline: Timeline, low_frames: int) -> None:
    """Raise ValueError where groups do not repeat, or too late for so long a clip."""
    most = int(_MAX_TABLE / timeline.ratio)
    if min(timeline.period(), low_frames) > max(most, timeline.group_length):
        raise ValueError(
            f"with a time factor of {timeline.ratio} the low-rate clip must have at most {most} "
            f"frames, got {low_frames}; {_TRIM}"
        )


_TRIM = "core.std.Trim cuts clips of players, which state no length"


def check_memory(
    session: Session,
    group: tuple[int, int],
    source: FrameType,
    output: FrameType,
    *,
    restored: bool = False,
    refined: bool = False,
) -> None:
    """Raise ValueError where a group takes more memory than is free.

    ``restored``: whether its source frames are restored too, to be compared; ``refined``: whether
    its low-rate frames are.

    There would be no error later: the system hands out memory that it does not have, and ends the
    process that uses it. ``group``: frames of the largest group before and after the filter.
    """
    kinds = (source, output)
    pixels = [n * kind.height * kind.width for n, kind in zip(group, kinds, strict=True)]
    stored = [3 * n * kind.dtype.itemsize for n, kind in zip(pixels, kinds, strict=True)]
    # Two equal group buffers, and frames of two groups on either side of the filter.
    needed = 2 * max(stored) + 2 * sum(stored) + restored * sum(stored)
    if session.device.type == "cpu":
        needed += 2 * 4 * 3 * sum(pixels)  # before and after a stage, as 32-bit numbers
        # What is restored, its error and its gradient; low-rate frames, means and gradients.
        needed += refined * 4 * 3 * (12 * pixels[0] + 12 * pixels[1])
    free = free_memory()
    if needed > free:
        raise ValueError(
            f"a group of frames takes about {needed / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB "
            "of memory are free: use a smaller gop, time factor or size"
        )
