"""Whether a group arrived as it was sent, and what is shown of it where it did not.

Where it did not, its hidden motion may be gone, and what a model restores from it may be worse than
a repeated frame. Whether it is, shows without the original: `TRUSTED_CORRELATION`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from vs_cvrs.carrier import stamp
from vs_cvrs.carrier.levels import Levels
from vs_cvrs.carrier.stamp import Stamp
from vs_cvrs.plugin.frames import FrameType, fit
from vs_cvrs.runtime.session import Frames
from vs_cvrs.timeline import GroupTable, Timeline

__all__ = [
    "TRUSTED_CORRELATION",
    "Verdict",
]

TRUSTED_CORRELATION = 0.33
"""When what is restored from a damaged group is shown.

A frame that was removed lies between its neighbours: what sets it apart from the nearer one points
towards the other one, if not straight. What damaged hidden data restore to points nowhere. So the
difference of restored and nearer low-rate frame is correlated with the difference of the two
low-rate frames, over all frames of a group that no low-rate frame shows. This needs no original and
knows nothing of the model. Measured: docs/damage.md.
"""


@dataclass(frozen=True)
class Verdict:
    """What is found out about a group.

    Attributes:
        intact: None where nothing is known.
        warning: to be logged, where not empty.
        properties: frame properties of its output frames.
    """

    intact: bool | None = None
    warning: str = ""
    properties: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Judge:
    """Judges the groups of a clip whose frames ought to have stamps.

    Attributes:
        table, timeline: the grouping.
        phase: low-rate index of source frame 0.
        checksum: of the weights that restore.
        output: the restored frames' type.
    """

    table: GroupTable
    timeline: Timeline
    phase: int
    checksum: str
    output: FrameType

    def stamps(self, group: int, levels: Levels) -> list[Stamp | None]:
        """The stamps of a group's frames."""
        begin, end = (int(n) for n in self.table.source_begin[group : group + 2])
        head = self.table.source_head if group == 0 else 0
        return [stamp.read(frame) for frame in levels[head : head + end - begin]]

    def damage(self, group: int, found: list[Stamp | None]) -> str:
        """What is wrong with a group's frames; empty when they are as they were sent.

        Args:
            group: its number.
            found: their stamps.
        """
        begin, end = (int(n) for n in self.table.source_begin[group : group + 2])
        frames = f"frames {begin} to {end - 1} of the clip"
        first = found[0]
        if first is None or None in found:
            return (
                f"{frames} are not as Downsample made them: encoded with loss, converted, scaled, "
                "or from elsewhere"
            )
        if first.checksum != self.checksum:
            return f"{frames} were made with another model ({first.checksum})"
        if (first.ratio, first.group_length) != (self.timeline.ratio, self.timeline.group_length):
            return (
                f"{frames} were made with a time factor of {first.ratio} and gop "
                f"{first.group_length}, not {self.timeline.ratio} and {self.timeline.group_length}"
            )
        index = self.phase + begin
        if found != [replace(first, index=index + i) for i in range(len(found))]:
            if begin == 0 and first.index != index:
                return f"{frames} begin with low-rate frame {first.index}: give phase={first.index}"
            return f"{frames} are out of place: the clip was cut or reordered"
        whole_begin = index - index % first.group_length
        sent = self.timeline.low_count(first.length)
        if index > whole_begin or end + self.phase < min(whole_begin + first.group_length, sent):
            return f"{frames} are only a part of their group: the clip was cut inside it"
        return ""

    def repeat_if_better(self, group: int, levels: Levels, output: Frames) -> None:
        """Show repeated low-rate frames where what is restored cannot be trusted."""
        table = self.table
        begin, end = (int(n) for n in table.output_begin[group : group + 2])
        head, output_head = (table.source_head, table.output_head) if group == 0 else (0, 0)
        low_begin, low_end = (int(n) for n in table.source_begin[group : group + 2])
        shown = output[output_head : output_head + end - begin]
        size = (self.output.height, self.output.width)
        received = levels[head : head + low_end - low_begin]
        low = np.stack([fit(frame, size) for frame in received])
        nearest = table.nearest_source[begin:end] - low_begin
        # The neighbour on the other side of each frame that no low-rate frame shows.
        high = self.timeline.high_begin(self.phase) + np.arange(begin, end)
        places = [self.timeline.high_begin(self.phase + n) for n in range(low_begin, low_end)]
        before = np.searchsorted(places, high, side="right") - 1
        between = (before >= 0) & (before + 1 < len(low)) & ~np.isin(high, places)
        products = np.zeros(3)
        for n in np.flatnonzero(between):
            other = before[n] if nearest[n] != before[n] else before[n] + 1
            change = shown[n] * np.float32(255.0 / self.output.top) - low[nearest[n]]
            motion = low[other] - low[nearest[n]]
            products += [np.vdot(change, motion), np.vdot(change, change), np.vdot(motion, motion)]
        if products[0] > TRUSTED_CORRELATION * np.sqrt(products[1] * products[2]):
            return
        made = low[nearest] * (self.output.top / 255.0)
        shown[:] = np.round(made) if self.output.dtype.kind == "u" else made
