"""Groups that hide nothing: low-rate frames that only show, and what is shown between them.

Sender and receiver call the same functions, so that the sender knows to the last level what will be
shown.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from vs_cvrs.carrier.levels import Levels, white_of
from vs_cvrs.carrier.stamp import Mode
from vs_cvrs.plugin.frames import FrameType, fit
from vs_cvrs.runtime.session import Frames
from vs_cvrs.timeline import Neighbours, low_size

__all__ = ["interpolate", "reduce"]


def reduce(frame: Frames, kind: FrameType, low: FrameType) -> Levels:
    """A source frame as a low-rate frame that hides nothing: (3, height, width) of its type.

    What `fit` undoes: edge pixels are repeated up to a multiple of 4, anything else is an
    antialiased bicubic reduction.

    Args:
        frame: (3, height, width) of ``kind``.
        kind: its type.
        low: the type and size to make.
    """
    size = (low.height, low.width)
    height, width = frame.shape[1:]
    same_size = tuple(low_size(n, Fraction(1)) for n in (height, width)) == size
    if same_size and (kind.dtype, kind.top) == (low.dtype, low.top):
        edges = ((0, 0), (0, size[0] - height), (0, size[1] - width))
        return np.pad(frame, edges, mode="edge")
    levels = torch.from_numpy(frame.astype(np.float32) * np.float32(low.top / kind.top))[None]
    if same_size:
        levels = F.pad(levels, (0, size[1] - width, 0, size[0] - height), mode="replicate")
    else:
        levels = F.interpolate(levels, size=size, mode="bicubic", antialias=True)
    # Samples that are no numbers stand for no level; the session says what is wrong with them.
    levels = levels[0].nan_to_num(0.0).clamp(0.0, low.top).round()
    made: Levels = levels.numpy().astype(low.dtype)
    return made


def interpolate(
    low: Levels,
    between: Neighbours,
    mode: Mode,
    output: Frames,
    kind: FrameType,
) -> None:
    """Show a group's low-rate frames and what lies between them.

    Args:
        low: (n, 3, height, width), the low-rate frames of the group.
        between: where the frames to make lie.
        mode: what is shown between two low-rate frames; not `Mode.HIDDEN`.
        output: (frames, 3, height, width) of ``kind``, written.
        kind: type and size of the frames to make.
    """
    size = (kind.height, kind.width)
    # Levels that need not be fitted are copied, and of 8 bits halfway between two is exact anyway.
    as_they_are = (kind.dtype, kind.top) == (low.dtype, white_of(low)) and low.shape[2:] == tuple(
        low_size(n, Fraction(1)) for n in size
    )
    cut = low[:, :, : size[0], : size[1]]
    fitted: dict[int, npt.NDArray[np.float32]] = {}
    for n, (before, after, share) in enumerate(
        zip(between.before.tolist(), between.after.tolist(), between.share.tolist(), strict=True)
    ):
        if mode == Mode.EARLIER:
            after, share = before, 0.0
        elif mode == Mode.LATER:
            before, share = after, 0.0
        if as_they_are and not share:
            output[n] = cut[before]
            continue
        if as_they_are and share == 0.5 and kind.dtype == np.uint8:
            _halfway(cut[before], cut[after], output[n])
            continue
        fitted = {
            i: fitted[i] if i in fitted else fit(low[i], size) for i in sorted({before, after})
        }
        shown = fitted[before]
        if share:
            shown = shown + np.float32(share) * (fitted[after] - shown)
        output[n] = kind.samples(shown)


def _halfway(before: Levels, after: Levels, output: Frames) -> None:
    """The means of levels of 8 bits, halves rounded to even, as `np.round` does it."""
    for plane in range(len(output)):
        twice = np.add(before[plane], after[plane], dtype=np.uint16)
        twice += (twice >> 1) & 1
        twice >>= 1
        output[plane] = twice
