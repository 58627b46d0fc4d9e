"""Which frames belong together: frame rates, groups and tails in exact rational arithmetic.

A group is ``group_length`` consecutive low-rate frames together with the high-rate frames whose
centre in time falls into the span of those low-rate frames. Groups are closed: no frame of another
group is ever read. Sender and receiver derive the same grouping from the same few numbers.

Everything here works on frame counts, indices and `fractions.Fraction`; nothing here knows of
tensors, devices or VapourSynth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

__all__ = [
    "MAX_GROUP_LENGTH",
    "SIZE_MULTIPLE",
    "GroupTable",
    "Neighbours",
    "Timeline",
    "choose_group_length",
    "low_size",
    "nearest_allowed_sizes",
    "snap_rate",
    "snap_ratio",
]

SIZE_MULTIPLE = 4
"""Low-rate width and height are multiples of this: the IMSM folds space by two twice."""

MAX_GROUP_LENGTH = 256
"""Longest group, in low-rate frames; a bound on memory, not a property of the models."""

_SNAP_TOLERANCE = Fraction(1, 200)
_SNAP_MAX_DENOMINATOR = 1000

_SNAP_RATIO_TOLERANCE = Fraction(3, 10000)
_SNAP_RATIO_MAX_DENOMINATOR = 8


def snap_rate(fps: float) -> Fraction:
    """Turn a decimal frame rate into the exact rate it stands for.

    Whole and half numbers stay as they are. A value within 0.005 fps of a multiple of 500/1001
    becomes that broadcast rate or half of one (23.976 -> 24000/1001, 29.97 -> 30000/1001,
    14.985 -> 15000/1001). Anything else becomes the nearest fraction with a denominator of at most
    1000.

    Args:
        fps: frames per second, finite and greater than 0.

    Raises:
        ValueError: ``fps`` is not finite, or not at least 0.001.
    """
    if not (1 / _SNAP_MAX_DENOMINATOR <= fps < float("inf")):
        raise ValueError(f"fps must be a finite number of at least 0.001, got {fps:g}")
    value = Fraction(fps)
    if (value * 2).denominator == 1:
        return value
    broadcast = Fraction(round(value * 1001 / 500) * 500, 1001)
    if broadcast > 0 and abs(value - broadcast) <= _SNAP_TOLERANCE:
        return broadcast
    return value.limit_denominator(_SNAP_MAX_DENOMINATOR)


def snap_ratio(ratio: Fraction) -> Fraction:
    """The simple ratio that a decimal target rate and a clip's rate stand for.

    Readers make out a file's rate from rounded times (15 fps as 44000/2933), and a decimal rate is
    rounded too. A ratio within 0.03% of a fraction with a denominator of at most 8 becomes that;
    24000/1001 against 24 is 0.1%, and stays apart.
    """
    simple = ratio.limit_denominator(_SNAP_RATIO_MAX_DENOMINATOR)
    return simple if abs(ratio - simple) <= _SNAP_RATIO_TOLERANCE * ratio else ratio


def choose_group_length(ratio: Fraction, preferred: int) -> int:
    """Group length in low-rate frames: the model's preference, moved so that groups come out whole.

    A group of L low-rate frames spans L * ratio high-rate frames. Where the denominator q of the
    ratio is small (at most twice ``preferred``), L is the multiple of q nearest to ``preferred``
    (the smaller of two equally near ones); otherwise L is ``preferred`` and the number of high-rate
    frames varies by one from group to group.
    """
    step = ratio.denominator
    if step > 2 * preferred:
        return preferred
    below = max(step, preferred // step * step)
    above = below + step
    return below if abs(preferred - below) <= abs(above - preferred) else above


def low_size(high: int, scale: Fraction) -> int:
    """Low-rate width or height for a high-rate one: the nearest allowed size, ties upwards.

    At scale 1 the size is never rounded down, so that an unscaled picture only gains padding.
    """
    units = Fraction(high) / scale / SIZE_MULTIPLE
    count = math.ceil(units) if scale == 1 else math.floor(units + Fraction(1, 2))
    return max(1, count) * SIZE_MULTIPLE


def nearest_allowed_sizes(size: int) -> tuple[int, int]:
    """The allowed low-rate sizes just below and just above ``size`` (both at least 4)."""
    below = max(1, size // SIZE_MULTIPLE) * SIZE_MULTIPLE
    return below, below + SIZE_MULTIPLE


@dataclass(frozen=True)
class GroupTable:
    """Where each group of a filter begins, as VapourSynth frame numbers of its two clips.

    Group g reads source frames ``source_begin[g] .. source_begin[g + 1] - 1`` and makes output
    frames ``output_begin[g] .. output_begin[g + 1] - 1``. Both arrays are int64 and have one entry
    more than there are groups.

    ``head`` and ``tail`` state how far the first and the last group are short of whole ones:
    the source frames missing before the first (Upsample with a phase) and the source frames that
    repeat the last one (Downsample's tail), and likewise the leading and trailing output frames
    that the model makes and the clip does not show.

    ``nearest_source[n]`` is the source frame that output frame n takes its properties from.
    """

    source_begin: npt.NDArray[np.int64]
    output_begin: npt.NDArray[np.int64]
    source_head: int
    source_tail: int
    output_head: int
    output_tail: int
    nearest_source: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Neighbours:
    """Between which low-rate frames of a group its high-rate frames lie.

    Attributes:
        before, after: for each high-rate frame, the index within the group of the low-rate frame
            that shows it or is the last one to show an earlier frame, and of the next one. Both are
            the same where a low-rate frame shows it, and beyond the first and the last.
        share: how far it is on the way from the one to the other, 0 to below 1.
    """

    before: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]
    share: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Timeline:
    """The grouping of one pair of clips (see the module's docstring).

    Attributes:
        ratio: high rate over low rate, at least 1.
        group_length: low-rate frames in a whole group, 1 to `MAX_GROUP_LENGTH`.
    """

    ratio: Fraction
    group_length: int

    def __post_init__(self) -> None:
        if self.ratio < 1:
            raise ValueError(f"the time factor must be at least 1, got {self.ratio}")
        if not 1 <= self.group_length <= MAX_GROUP_LENGTH:
            raise ValueError(f"gop must be 1 to {MAX_GROUP_LENGTH}, got {self.group_length}")

    def high_begin(self, low: int) -> int:
        """First high-rate frame whose centre lies at or after the start of low-rate frame ``low``.

        ceil(low * ratio - 1/2). It is also the high-rate frame nearest to that frame's display
        time (ties down): the one that low-rate frame ``low`` shows.
        """
        num, den = self.ratio.numerator, self.ratio.denominator
        return -((den - 2 * low * num) // (2 * den))

    def low_count(self, high_count: int) -> int:
        """Fewest low-rate frames that span ``high_count`` high-rate frames (at least 1)."""
        low = max(1, math.floor(Fraction(high_count) / self.ratio))
        while self.high_begin(low) < high_count:
            low += 1
        while low > 1 and self.high_begin(low - 1) >= high_count:
            low -= 1
        return low

    def shown(self, low: int, high_count: int) -> int:
        """The high-rate frame that low-rate frame ``low`` shows, in a clip of ``high_count``."""
        return min(self.high_begin(low), high_count - 1)

    def neighbours(self, low_begin: int, low_end: int, high: npt.NDArray[np.int64]) -> Neighbours:
        """Where the high-rate frames ``high`` lie between ``low_begin`` and ``low_end - 1``."""
        places = self._high_begins(np.arange(low_begin, low_end, dtype=np.int64))
        before = np.maximum(np.searchsorted(places, high, side="right") - 1, 0)
        after = np.where(high > places[before], np.minimum(before + 1, len(places) - 1), before)
        step = np.maximum(places[after] - places[before], 1)
        share = np.where(after > before, (high - places[before]) / step, 0.0)
        return Neighbours(before, after, share)

    def downsample_table(self, high_count: int) -> GroupTable:
        """Groups of Downsample over a clip of ``high_count`` high-rate frames."""
        lows = self.low_count(high_count)
        low_begin = _group_starts(0, lows, self.group_length)
        high_begin = self._high_begins(low_begin)
        padded = int(high_begin[-1])
        high_begin[-1] = high_count
        shown = np.minimum(self._high_begins(np.arange(lows, dtype=np.int64)), high_count - 1)
        return GroupTable(high_begin, low_begin, 0, padded - high_count, 0, 0, shown)

    def upsample_table(self, low_count: int, phase: int = 0, length: int = 0) -> GroupTable:
        """Groups of Upsample over a clip of ``low_count`` low-rate frames.

        Args:
            low_count: frames of the low-rate clip, at least 1.
            phase: index of its first frame on the low-rate axis on which groups begin at the
                multiples of the group length; 0 for a clip that was not trimmed at its start.
            length: frames wanted of the restored clip; 0 for all.

        Raises:
            ValueError: ``phase`` is negative or ``length`` is more than these frames span.
        """
        if phase < 0:
            raise ValueError(f"phase must be 0 or more, got {phase}")
        origin = self.high_begin(phase)
        span = self.high_begin(phase + low_count) - origin
        if not 0 <= length <= span:
            raise ValueError(
                f"length must be 1 to {span}, the frames that {low_count} low-rate frames span, "
                f"got {length}"
            )
        length = length or span
        low_begin = _group_starts(phase, phase + low_count, self.group_length)
        high_begin = self._high_begins(low_begin)
        head = phase - phase // self.group_length * self.group_length
        output_head = origin - self.high_begin(phase - head)
        # A wanted length that ends before the last group begins leaves that group without output.
        groups = int(np.searchsorted(high_begin - origin, length, side="left"))
        low_begin, high_begin = low_begin[: groups + 1], high_begin[: groups + 1]
        output_tail = int(high_begin[-1]) - origin - length
        output_begin = high_begin - origin
        output_begin[-1] = length
        high = np.arange(origin, origin + length, dtype=np.int64)
        group = np.searchsorted(high_begin, high, side="right") - 1
        nearest = np.clip(self._low_nearest(high), low_begin[group], low_begin[group + 1] - 1)
        return GroupTable(
            low_begin - phase, output_begin, head, 0, output_head, output_tail, nearest - phase
        )

    def _high_begins(self, low: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        num, den = self.ratio.numerator, self.ratio.denominator
        if (int(low[-1]) + 1) * num * 2 >= 2**62:  # past int64: exact, if slow
            return np.array([self.high_begin(int(i)) for i in low], dtype=np.int64)
        return -((den - 2 * low * num) // (2 * den))

    def _low_nearest(self, high: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Low-rate frame nearest in display time to each high-rate frame, ties down."""
        num, den = self.ratio.numerator, self.ratio.denominator
        if (int(high[-1]) + 1) * den * 2 >= 2**62:
            return np.array(
                [-((num - 2 * int(i) * den) // (2 * num)) for i in high], dtype=np.int64
            )
        return -((num - 2 * high * den) // (2 * num))


def _group_starts(begin: int, end: int, step: int) -> npt.NDArray[np.int64]:
    """``begin``, every multiple of ``step`` between, and ``end``."""
    inner = np.arange((begin // step + 1) * step, end, step, dtype=np.int64)
    return np.concatenate(([begin], inner, [end])).astype(np.int64)
