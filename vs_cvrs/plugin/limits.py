"""What a filter may be asked to do: the ranges of its arguments, and what fits into memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vs_cvrs.plugin.frames import FrameType
from vs_cvrs.runtime.memory import free_memory
from vs_cvrs.runtime.session import Session
from vs_cvrs.timeline import (
    GroupTable,
)

__all__ = [
    "MAX_FRAMES",
    "MAX_RATE",
    "MAX_SIDE",
    "check_frames",
    "check_memory",
]

MAX_FRAMES = 2**24  # three days at 60 fps; the group table takes a few words for each


MAX_SIDE = 2**15


MAX_RATE = 2**31 - 1


def check_frames(which: str, frames: int) -> None:
    """Raise ValueError for a clip that is too long for a group table."""
    if frames > MAX_FRAMES:
        raise ValueError(
            f"the {which} clip must have at most {MAX_FRAMES} frames, got {frames}; core.std.Trim "
            "cuts clips of players, which state no length"
        )


def check_memory(
    session: Session,
    table: GroupTable,
    source: FrameType,
    output: FrameType,
    *,
    restored: bool = False,
) -> None:
    """Raise ValueError where a group takes more memory than is free.

    ``restored``: whether its source frames are restored too, to be compared.

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
    needed = 2 * max(stored) + 2 * sum(stored) + restored * sum(stored)
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
