"""Which frames belong together: frame rates, groups and tails in exact rational arithmetic.

A group is ``group_length`` consecutive low-rate frames together with the high-rate frames whose
centre in time falls into the span of those low-rate frames. Groups are closed: no frame of another
group is ever read. Sender and receiver derive the same grouping from the same few numbers.

Everything here works on frame counts, indices and `fractions.Fraction`; nothing here knows of
tensors, devices or VapourSynth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

__all__ = [
    "MAX_GROUP_LENGTH",
    "SIZE_MULTIPLE",
    "Group",
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
class Group:
    """One group of a `GroupTable`, in frame numbers of the two clips.

    Attributes:
        source, output: the frames that the clips have of it.
        source_head, source_tail: frames that are missing before and after those in the source clip;
            they repeat the frame next to them.
        output_head, output_tail: frames that are made before and after those, and not shown.
        nearest: for each output frame the source frame nearest in display time.
    """

    source: range
    output: range
    source_head: int
    source_tail: int
    output_head: int
    output_tail: int
    nearest: tuple[int, ...]


@dataclass(frozen=True)
class GroupTable:
    """Where each group of a filter begins, on the frame axes of its two clips.

    Groups are laid from frame 0 of both axes on and repeat after one period, so that a table of any
    clip, endless ones too, is a few words. Group g of a period reads source frames
    ``source_begin[g] .. source_begin[g + 1] - 1`` and makes output frames ``output_begin[g] ..
    output_begin[g + 1] - 1``; ``nearest_source[n]`` is the source frame nearest in display time to
    output frame n of a period. All three are int64; the next period lies ``source_begin[-1]`` and
    ``output_begin[-1]`` frames further.

    The clips begin ``source_head`` and ``output_head`` frames into their axes (Upsample with a
    phase), and have ``source_frames`` and ``output_frames`` frames. The last group is made of and
    makes the frames before ``source_end`` and ``output_end`` on the axes: beyond the source clip
    its last frame is repeated (Downsample's tail), beyond the output clip frames are not shown.
    """

    source_begin: npt.NDArray[np.int64]
    output_begin: npt.NDArray[np.int64]
    nearest_source: npt.NDArray[np.int64]
    source_head: int
    output_head: int
    source_frames: int
    output_frames: int
    source_end: int
    output_end: int

    def __len__(self) -> int:
        """The number of groups."""
        return self.group_of(self.output_frames - 1) + 1

    def group_of(self, output: int) -> int:
        """The group that makes a frame of the output clip."""
        period, within = divmod(output + self.output_head, int(self.output_begin[-1]))
        first = period * (len(self.output_begin) - 1)
        return first + int(np.searchsorted(self.output_begin, within, side="right")) - 1

    def group(self, number: int) -> Group:
        """A group, by its number."""
        source, output = (
            self._span(begins, number, end)
            for begins, end in (
                (self.source_begin, self.source_end),
                (self.output_begin, self.output_end),
            )
        )
        there = _clip(source, self.source_head, self.source_frames)
        shown = _clip(output, self.output_head, self.output_frames)
        period = number // (len(self.source_begin) - 1)
        last = len(self.nearest_source)
        nearest = tuple(
            min(max(n, there.start), there.stop - 1)
            for n in (
                int(self.nearest_source[m % last])
                + period * int(self.source_begin[-1])
                - self.source_head
                for m in range(shown.start + self.output_head, shown.stop + self.output_head)
            )
        )
        return Group(
            there,
            shown,
            there.start + self.source_head - source.start,
            source.stop - there.stop - self.source_head,
            shown.start + self.output_head - output.start,
            output.stop - shown.stop - self.output_head,
            nearest,
        )

    def groups(self) -> Iterator[Group]:
        """All groups, one by one."""
        return (self.group(number) for number in range(len(self)))

    @staticmethod
    def _span(begins: npt.NDArray[np.int64], number: int, end: int) -> range:
        period, within = divmod(number, len(begins) - 1)
        origin = period * int(begins[-1])
        return range(origin + int(begins[within]), min(end, origin + int(begins[within + 1])))


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

    def low_of(self, high: int) -> int:
        """The low-rate frame in whose time span the centre of a high-rate frame lies."""
        return (2 * high + 1) * self.ratio.denominator // (2 * self.ratio.numerator)

    def nearest_low(self, high: int) -> int:
        """The low-rate frame nearest in display time to a high-rate frame, ties down."""
        num, den = self.ratio.numerator, self.ratio.denominator
        return -((num - 2 * high * den) // (2 * num))

    def restored_count(self, low_count: int, phase: int, sent: int) -> int:
        """High-rate frames that a clip of ``low_count`` low-rate frames restores to.

        The clip begins with low-rate frame ``phase`` of a clip of ``sent`` high-rate frames, and
        ends with it at the latest; where it has more frames than were left of that one, others were
        joined on, and all of them count. 0 or less: the clip begins behind the end.
        """
        begin = self.high_begin(phase)
        span = self.high_begin(phase + low_count) - begin
        if begin < sent and low_count > self.low_count(sent) - phase:
            return span
        return min(span, sent - begin)

    def most_high(self) -> int:
        """High-rate frames of the largest group."""
        return math.ceil(self.group_length * self.ratio)

    def downsample_table(self, high_count: int) -> GroupTable:
        """Groups of Downsample over a clip of ``high_count`` high-rate frames."""
        lows = self.low_count(high_count)
        low_begin, high_begin = self._period(0, lows)
        shown = self._high_begins(np.arange(low_begin[-1], dtype=np.int64))
        return GroupTable(
            source_begin=high_begin,
            output_begin=low_begin,
            nearest_source=shown,
            source_head=0,
            output_head=0,
            source_frames=high_count,
            output_frames=lows,
            source_end=self.high_begin(lows),
            output_end=lows,
        )

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
        axis = phase // self.group_length * self.group_length
        low_begin, high_begin = self._period(axis, phase + low_count - axis)
        first = self.high_begin(axis)
        nearest = self._low_nearest(np.arange(first, first + high_begin[-1], dtype=np.int64)) - axis
        group = np.searchsorted(high_begin, np.arange(high_begin[-1]), side="right") - 1
        # A wanted length that ends before the last group begins leaves that group without output.
        last = self.low_of(origin + length - 1) // self.group_length + 1
        end = min(last * self.group_length, phase + low_count)
        return GroupTable(
            source_begin=low_begin,
            output_begin=high_begin,
            nearest_source=np.clip(nearest, low_begin[group], low_begin[group + 1] - 1),
            source_head=phase - axis,
            output_head=origin - first,
            source_frames=low_count,
            output_frames=length,
            source_end=end - axis,
            output_end=self.high_begin(end) - first,
        )

    def period(self) -> int:
        """Low-rate frames after which the grouping repeats."""
        return self.group_length * (self.group_length * self.ratio).denominator

    def _period(self, low: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where groups begin, counted from low-rate frame ``low``: one period, or all of a clip."""
        groups = min(self.period(), count + self.group_length - 1) // self.group_length
        low_begin = np.arange(groups + 1, dtype=np.int64) * self.group_length
        high_begin = self._high_begins(low + low_begin)
        return low_begin, high_begin - high_begin[0]

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


def _clip(span: range, head: int, frames: int) -> range:
    """What a clip has of a span of the axis that it begins ``head`` frames into."""
    return range(max(span.start - head, 0), min(span.stop - head, frames))
