"""What the frames of a low-rate clip say of themselves, by stamps, and by marks without those.

A stamp is read from its frame alone. Marks say little in a single frame, so those of a group on the
grid (`Alignment.grid`) are read together, where none of its frames has a stamp. Either way what is
read of a frame depends on the clip alone, not on what was asked for before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from vs_cvrs.carrier import mark, stamp
from vs_cvrs.carrier.levels import Levels
from vs_cvrs.carrier.mark import Evidence, Message
from vs_cvrs.carrier.stamp import Stamp
from vs_cvrs.plugin.alignment import Alignment, Mark
from vs_cvrs.plugin.damage import Judge
from vs_cvrs.timeline import MAX_GROUP_LENGTH

__all__ = ["Reader"]

_REMEMBERED = 32 * MAX_GROUP_LENGTH
"""Frames that are remembered: many times what is needed to tell where one group is."""

_UNKNOWN = 2**31

_MARKED = "marked"
"""`Mark.clip` of frames that marks number: they say nothing of the clip but its kind."""


@dataclass
class Reader:
    """Reads frames, and remembers what they said.

    Attributes:
        judge: says what a stamp means here.
        alignment: the clip's grouping.
        stamped: frames may have stamps.
        message: what marks say here; None: they are not looked for.
        ours: the clip is known to be one that Downsample made.
        marks: by frame, where it comes from; None where nothing says it.
    """

    judge: Judge
    alignment: Alignment
    stamped: bool
    message: Message | None = None
    ours: bool = False
    marks: dict[int, Mark | None] = field(default_factory=dict)
    _stamps: OrderedDict[int, Stamp | None] = field(default_factory=OrderedDict)
    _evidence: dict[int, Evidence] = field(default_factory=dict)
    _carries: dict[int, bool] = field(default_factory=dict)

    def knows(self, frame: int) -> bool:
        """Whether a frame was read, and is remembered."""
        return frame in self._stamps

    def read(self, frames: Mapping[int, Levels]) -> None:
        """Read frames, each (3, height, width), by their numbers in the clip."""
        found = stamp.read_all(list(frames.values())) if self.stamped else [None] * len(frames)
        for (frame, levels), of_it in zip(frames.items(), found, strict=True):
            self._take(frame, levels, of_it)

    def _take(self, frame: int, levels: Levels, found: Stamp | None) -> None:
        self._stamps[frame] = found
        if self.message is None or found is not None:
            self.marks[frame] = self.judge.mark(found)
            self._carries[frame] = found is not None and self.judge.is_ours(found)
        if self.message is not None:
            if found is None:
                self._evidence[frame] = mark.read(levels)
            self._read_group(self.message, self.alignment.grid(frame))
        if len(self._stamps) > _REMEMBERED:
            # A group's frames were read together.
            for n in self.alignment.grid(next(iter(self._stamps))):
                for kept in (self._stamps, self.marks, self._carries, self._evidence):
                    kept.pop(n, None)

    def wanted(self, frames: range) -> range:
        """The frames to read where it is asked for what these say."""
        if self.message is None:
            return frames
        grid = self.alignment.grid
        return range(grid(frames.start).start, grid(frames.stop - 1).stop)

    def stamps(self, frames: range) -> list[Stamp | None]:
        """Of frames that were read."""
        return [self._stamps.get(n) for n in frames]

    def carries(self, frame: int) -> bool:
        """Whether a frame that was read hides what this clip's receiver can read."""
        return self._carries.get(frame, False)

    def _read_group(self, message: Message, group: range) -> None:
        """Number frames without stamps, once all frames of their group were read."""
        if not all(n in self._stamps for n in group):
            return
        said = {n: self._evidence.pop(n) for n in group if n in self._evidence}
        if len(said) == len(group):
            first = self.alignment.phase + group.start
            places = mark.match(list(said.values()), message, first, self.ours)
            for n, place in zip(group, places, strict=True):
                self.marks[n] = None if place is None else self._mark(place, n)
                self._carries[n] = place is not None
            return
        # The stamps number the group. Whether the other frames hide anything is seen in each.
        firsts = [found.index - n for n, found in enumerate(self.stamps(group)) if found]
        for n, evidence in said.items():
            self.marks[n] = None
            expected = max(firsts[0] + n - group.start, 0)
            self._carries[n] = mark.match([evidence], message, expected) != [None]

    def _mark(self, place: mark.Place, frame: int) -> Mark:
        expected = self.alignment.phase + frame
        index = mark.index_near(place, expected)
        # How many were sent is not known; of a clip that nobody cut, as many as there are.
        uncut = self.alignment.phase + self.alignment.frames
        return Mark(_MARKED, index, uncut if index == expected else _UNKNOWN)
