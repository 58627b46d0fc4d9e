"""Which frames of a low-rate clip make up a group, wherever the clip was cut.

A group is looked for where it would stand in a clip that nobody cut: on the grid that the clip's
first frame begins. Where the marks of the frames there (`Mark`: what stamps say) are not those of
one whole group, the marks around decide. The clip falls into runs: frames side by side that follow
one another in one group. A run that is a whole group is restored exactly as it was sent; a run that
is less takes the frames that it lacks from beside it where they are there (doubled frames, frames
in another order), and else repeats its own.

Time: frame p of the clip is shown as long as ever, from output frame ceil(p r - 1/2) on, r being
the time factor (`Timeline.high_begin`). A run fills the output frames of its low-rate frames with
its restored frames, one by one from its first on. Where the time factor times the group length is
whole, a whole group has exactly as many wherever it stands. Else there may be one output frame
more, and the run's last restored frame is shown twice, or one less, and it is not shown.

What comes out for an output frame depends on the clip alone, not on what was asked for before.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from vs_cvrs.timeline import Timeline

__all__ = ["Alignment", "Mark", "Unit"]


@dataclass(frozen=True)
class Mark:
    """Where a low-rate frame comes from.

    Attributes:
        clip: what is equal for the frames of one group of one clip, and differs from clip to clip.
        index: the frame's number in it.
        sent: low-rate frames that the clip had, as far as is known.
    """

    clip: Hashable
    index: int
    sent: int


Marks = Mapping[int, Mark | None]
"""By the number of a frame in the received clip; None for a frame without a mark."""


@dataclass(frozen=True)
class Unit:
    """Output frames that are made together, of one group.

    Attributes:
        run: the frames of the clip whose time the output frames fill.
        first: low-rate index of the group's first frame, on the sender's axis.
        index: low-rate index of the run's first frame.
        sources: for each low-rate frame of the group, the frame of the clip that stands for it; and
            those behind them that are looked at too.
        output: the output frames.
        made: frames that are restored from the group.
        shown: for each output frame, which of those it is.
        nearest: for each output frame, the frame of the run nearest in display time.
        whole: every frame of the group is there, with its mark.
    """

    run: range
    first: int
    index: int
    sources: tuple[int, ...]
    output: range
    made: int
    shown: tuple[int, ...]
    nearest: tuple[int, ...]
    whole: bool


Label = tuple[Hashable, int, int]
"""Equal for the frames of a run: their clip, how far they moved, and their group."""


@dataclass(frozen=True)
class Alignment:
    """Finds the groups of a clip.

    Attributes:
        timeline: ratio and group length.
        frames: of the low-rate clip.
        phase: low-rate index that its first frame has on the grid.
        length: output frames.
        ahead: frames behind a group's last that are looked at too, where the clip has them.
        endless: where the clip ends is unknown, and frames behind its end are errors.
    """

    timeline: Timeline
    frames: int
    phase: int
    length: int
    ahead: int = 0
    endless: bool = False

    def place(self, output: int, marks: Marks) -> Unit | range:
        """The unit that makes an output frame, or frames whose marks are needed to tell.

        At most 2 * group_length - 1 frames on either side of the one that the output frame falls
        on are ever needed, and at least one that ``marks`` does not have. Of an endless clip none
        is needed behind a whole group.
        """
        size = self.timeline.group_length
        origin = self.timeline.high_begin(self.phase)
        position = self.timeline.low_of(origin + output) - self.phase
        grid = self.grid(position)
        if self.endless:
            for told in (grid.start, position):
                if found := self._whole(told, position, marks):
                    return found
            if position not in marks:
                return range(position, position + 1)
        if unknown := _unknown(grid, marks):
            return unknown
        if unit := self._on_grid(grid, marks):
            return unit
        if found := self._whole(position, position, marks):
            return found
        reach = 2 * size - 1
        window = range(max(0, position - reach), min(self.frames, position + reach + 1))
        if unknown := _unknown(window, marks):
            return unknown
        return self._around(position, marks)

    def grid(self, position: int) -> range:
        """The group that a frame belongs to in a clip that nobody cut."""
        size = self.timeline.group_length
        begin = (self.phase + position) // size * size - self.phase
        return range(max(0, begin), min(begin + size, self.frames))

    def _group(self, mark: Mark) -> tuple[int, int]:
        """First frame of a mark's group, and the one after its last, in the sender's clip."""
        first = mark.index - mark.index % self.timeline.group_length
        return first, min(first + self.timeline.group_length, mark.sent)

    def _whole(self, told: int, position: int, marks: Marks) -> Unit | range | None:
        """The unit of a frame's group where it is whole by the mark of another frame of it.

        Or the group's frames, where not all of their marks are known.
        """
        mark = marks.get(told)
        if mark is None:
            return None
        first, last = self._group(mark)
        expected = range(told - mark.index + first, told - mark.index + last)
        if position not in expected or expected.start < 0 or expected.stop > self.frames:
            return None
        if _unknown(expected, marks):
            return expected
        if not all(_follows(marks[n], mark, n - told) for n in expected):
            return None
        return self._unit(expected, (first, last), first, tuple(expected), True)

    def _on_grid(self, grid: range, marks: Marks) -> Unit | None:
        """The unit of a grid's group whose frames are where they belong, as far as marks tell."""
        there = next((n for n in grid if marks[n] is not None), None)
        if there is None:
            return self._unmarked(grid)
        mark = marks[there]
        assert mark is not None
        index = mark.index - (there - grid.start)
        first, last = self._group(mark)
        if (index, index + len(grid)) != (first, last):
            return None
        if not all(marks[n] is None or _follows(marks[n], mark, n - there) for n in grid):
            return None
        whole = all(marks[n] is not None for n in grid)
        return self._unit(grid, (first, last), index, tuple(grid), whole)

    def _around(self, position: int, marks: Marks) -> Unit:
        """The unit of a frame's run, by the marks around it."""
        label = self._label(position, marks)
        begin, end = position, position + 1
        while begin > 0 and self._label(begin - 1, marks) == label:
            begin -= 1
        while end < self.frames and self._label(end, marks) == label:
            end += 1
        run = range(begin, end)
        clip, moved, group = label
        if clip is None:
            return self._unmarked(run)
        size = self.timeline.group_length
        beside_it = (marks[n] for n in self.grid(position))
        sent = max(mark.sent for mark in beside_it if mark is not None and mark.clip == clip)
        first, last = group * size, min((group + 1) * size, sent)
        found = {n + moved: n for n in run if marks[n] is not None}
        known = bool(found)  # else where the run belongs is only guessed
        beside = [n for i in range(1, size + 1) for n in (begin - i, end + i - 1)]
        for n in beside:
            mark = marks[n] if 0 <= n < self.frames else None
            if mark is not None and mark.clip == clip and first <= mark.index < last:
                found.setdefault(mark.index, n)
        whole = known and len(found) == last - first
        for n in run:
            found.setdefault(n + moved, n)
        sources = tuple(
            found[min(found, key=lambda index: (abs(index - wanted), index))]
            for wanted in range(first, last)
        )
        return self._unit(run, (first, last), begin + moved, sources, whole)

    def _label(self, position: int, marks: Marks) -> Label:
        """What is equal for all frames of a run, and differs between it and its neighbours.

        A frame without a mark goes with the nearest one that has a mark, among the frames of its
        group on the grid.
        """
        grid = self.grid(position)
        for side in (range(position, grid.start - 1, -1), range(position + 1, grid.stop)):
            for n in side:
                mark = marks[n]
                if mark is None:
                    continue
                index = mark.index + position - n
                if 0 <= index < mark.sent:
                    return mark.clip, index - position, index // self.timeline.group_length
                break
        return None, grid.start, 0

    def _unmarked(self, run: range) -> Unit:
        """The unit of frames without marks: they are taken for those that belong there."""
        size = self.timeline.group_length
        index = self.phase + run.start
        first = index - index % size
        last = min(first + size, self.phase + self.frames)
        sources = tuple(
            min(max(n - self.phase, run.start), run.stop - 1) for n in range(first, last)
        )
        return self._unit(run, (first, last), index, sources, False)

    def _unit(
        self, run: range, group: tuple[int, int], index: int, sources: tuple[int, ...], whole: bool
    ) -> Unit:
        high_begin = self.timeline.high_begin
        origin = high_begin(self.phase)
        output = range(
            high_begin(self.phase + run.start) - origin,
            min(high_begin(self.phase + run.stop) - origin, self.length),
        )
        last = high_begin(index + len(run)) - 1
        high = [min(high_begin(index) + n, last) for n in range(len(output))]
        first, end = (high_begin(n) for n in group)
        nearest = (self.timeline.nearest_low(n) - index for n in high)
        behind = range(sources[-1] + 1, min(sources[-1] + 1 + self.ahead, self.frames))
        return Unit(
            run=run,
            first=group[0],
            index=index,
            sources=(*sources, *behind),
            output=output,
            made=end - first,
            shown=tuple(n - first for n in high),
            nearest=tuple(run[min(max(n, 0), len(run) - 1)] for n in nearest),
            whole=whole,
        )


def _unknown(frames: range, marks: Marks) -> range | None:
    """The frames that hold all whose marks are not known; None where all are."""
    missing = [n for n in frames if n not in marks]
    return range(missing[0], missing[-1] + 1) if missing else None


def _follows(mark: Mark | None, other: Mark, distance: int) -> bool:
    """Whether a frame is the one that was sent so many frames after another."""
    return mark is not None and mark.clip == other.clip and mark.index == other.index + distance
