"""Whether a group arrived as it was sent, and whether what it hides did where it did not.

Where hidden motion is gone, what a model restores is worse than what motion alone makes of the
frames that are there. Whether it is, shows without the original: `ARRIVED`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from vs_cvrs.carrier.stamp import Stamp
from vs_cvrs.plugin.alignment import Mark, Unit
from vs_cvrs.plugin.frames import FrameType
from vs_cvrs.runtime.session import Frames
from vs_cvrs.timeline import Timeline

__all__ = [
    "ARRIVED",
    "Damage",
    "Judge",
    "Verdict",
]

ARRIVED = 0.17
"""When what is restored from a damaged group is shown, and not what is interpolated.

A low-rate frame differs a little from the frame it shows: by what is hidden. A receiver that finds
that takes it off. Where it was lost, there is nothing to take off, and the frames between come out
as noise. So the mean square by which frames that are shown are changed, in levels of 8 bits, must
be more than this share of the root mean square by which what is restored between them differs from
what motion alone makes there, or of `_NOISE` where that is less. This needs no original and knows
nothing of the model. Measured: docs/damage.md.
"""

_NOISE = 10.0
"""Levels. Where frames between differ by more, interpolation is what fails."""

_MOST = 100.0
"""A frame that is changed by more, in squares of levels, is not what the low-rate frame shows."""


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

    def arrived(self, unit: Unit, restored: Frames, interpolated: Frames) -> bool:
        """Whether what a damaged group hides still arrived, by what is restored of it.

        Args:
            unit: the frames in question.
            restored: (frames, 3, height, width) of the output's type.
            interpolated: what would be shown if nothing had arrived, likewise.
        """
        high_begin = self.timeline.high_begin
        lows = range(unit.index, unit.index + len(unit.run))
        rows = [high_begin(low) - high_begin(unit.first) for low in lows]
        shown, between = [], []
        for row, following in itertools.pairwise(rows):
            if following > row + 1:
                change = restored[row:following].astype(np.float32) - interpolated[row:following]
                change = self._reduced(change * np.float32(255.0 / self.output.top))
                squares = np.square(change).mean((1, 2, 3))
                shown.append(squares[:1])
                between.append(squares[1:])
        if not shown:
            return False
        least = ARRIVED * min(_NOISE, np.sqrt(np.concatenate(between).mean()))
        return bool(least < np.concatenate(shown).mean() < _MOST)

    def _reduced(self, change: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A change of frames at the low size: detail that enlarging adds says nothing here."""
        if self.output.height <= self.low[0] and self.output.width <= self.low[1]:
            return change
        x = torch.from_numpy(change)
        return F.interpolate(x, self.low, mode="bicubic", antialias=True).numpy()

    def _other_size(self, found: Stamp) -> bool:
        size = (self.output.height, self.output.width)
        return (found.height, found.width) != size and self.low != size

    def _other_grouping(self, found: Stamp) -> bool:
        return (found.ratio, found.group_length) != (
            self.timeline.ratio,
            self.timeline.group_length,
        )
