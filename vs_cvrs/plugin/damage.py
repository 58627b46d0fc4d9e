"""Whether a group arrived as it was sent, and what is shown of it where it did not.

Where it did not, its hidden motion may be gone, and what a model restores from it may be worse than
a repeated frame. Whether it is, shows without the original: `TRUSTED_CORRELATION`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vs_cvrs.carrier.levels import Levels
from vs_cvrs.carrier.stamp import Stamp
from vs_cvrs.plugin.alignment import Mark, Unit
from vs_cvrs.plugin.frames import FrameType, fit
from vs_cvrs.runtime.session import Frames
from vs_cvrs.timeline import Timeline

__all__ = [
    "TRUSTED_CORRELATION",
    "Damage",
    "Judge",
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
    properties: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Damage:
    """What is wrong with a group's frames.

    Attributes:
        what: a sentence without its end.
        readable: what was hidden in the frames that are there can still be read.
    """

    what: str
    readable: bool = False


@dataclass(frozen=True)
class Judge:
    """Judges the groups of a clip whose frames ought to have stamps.

    Attributes:
        timeline: the grouping.
        checksum: of the weights that restore.
        low: (height, width) of the low-rate frames.
        output: the restored frames' type.
    """

    timeline: Timeline
    checksum: str
    low: tuple[int, int]
    output: FrameType

    def mark(self, found: Stamp | None) -> Mark | None:
        """Where a frame with this stamp comes from; None where it says nothing of our groups."""
        if found is None or self._other_grouping(found):
            return None
        sent = self.timeline.low_count(found.length)
        return Mark(replace(found, index=0), found.index, sent) if found.index < sent else None

    def is_ours(self, found: Stamp) -> bool:
        """Whether a frame with this stamp hides what our model can read, in groups as ours."""
        return (
            found.checksum == self.checksum
            and not self._other_size(found)
            and not self._other_grouping(found)
        )

    def damage(self, unit: Unit, found: Sequence[Stamp | None]) -> Damage | None:
        """What is wrong with a unit, by the stamps of its run's frames; None: all is as sent."""
        frames = f"frames {unit.run.start} to {unit.run.stop - 1} of the clip"
        first = next((stamp for stamp in found if stamp is not None), None)
        if first is not None and self._other_grouping(first):
            return Damage(
                f"{frames} were made with a time factor of {first.ratio} and gop "
                f"{first.group_length}, not {self.timeline.ratio} and {self.timeline.group_length}"
            )
        if first is None or (None in found and not unit.whole):
            return Damage(
                f"{frames} are not as Downsample made them: encoded with loss, converted, scaled, "
                "or from elsewhere"
            )
        if first.checksum != self.checksum:
            return Damage(f"{frames} were made with another model ({first.checksum})")
        if self._other_size(first):
            return Damage(
                f"{frames} were made from frames of {first.width}x{first.height}, not "
                f"{self.output.width}x{self.output.height}"
            )
        if not unit.whole:
            return Damage(
                f"{frames} are only a part of their group: the clip was cut inside it", True
            )
        return None

    def repeat_if_better(
        self, unit: Unit, levels: Levels, output: Frames, arrived: bool | None = None
    ) -> bool:
        """Show repeated low-rate frames where what is restored cannot be trusted; say whether.

        Args:
            unit: the frames in question.
            levels: the low-rate frames that they are made of.
            output: what is restored.
            arrived: what `CvrsModel.arrived` says of it; where that is known, it is believed.
        """
        high_begin = self.timeline.high_begin
        rows = range(unit.shown[0], unit.shown[-1] + 1)
        shown = output[rows.start : rows.stop]
        size = (self.output.height, self.output.width)
        received = levels[unit.index - unit.first :][: len(unit.run)]
        low = np.stack([fit(frame, size) for frame in received])
        high = high_begin(unit.first) + np.array(rows)
        places = [high_begin(unit.index + n) for n in range(len(low))]
        nearest = np.clip(
            [self.timeline.nearest_low(int(n)) - unit.index for n in high], 0, len(low) - 1
        )
        # The neighbour on the other side of each frame that no low-rate frame shows.
        before = np.searchsorted(places, high, side="right") - 1
        between = (before >= 0) & (before + 1 < len(low)) & ~np.isin(high, places)
        if arrived is not None:
            trusted = arrived and bool(between.any())
        else:
            products = np.zeros(3)
            for n in np.flatnonzero(between):
                other = before[n] if nearest[n] != before[n] else before[n] + 1
                change = shown[n] * np.float32(255.0 / self.output.top) - low[nearest[n]]
                motion = low[other] - low[nearest[n]]
                pairs = (change, motion), (change, change), (motion, motion)
                products += [np.vdot(*pair) for pair in pairs]
            trusted = products[0] > TRUSTED_CORRELATION * np.sqrt(products[1] * products[2])
        if trusted:
            return False
        shown[:] = self.output.samples(low[nearest])
        return True

    def _other_size(self, found: Stamp) -> bool:
        size = (self.output.height, self.output.width)
        return (found.height, found.width) != size and self.low != size

    def _other_grouping(self, found: Stamp) -> bool:
        return (found.ratio, found.group_length) != (
            self.timeline.ratio,
            self.timeline.group_length,
        )
