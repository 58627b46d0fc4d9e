"""What the group filter asks of Python for each group: making its frames, and judging them.

Downsample stamps the frames that it makes (`vs_cvrs.carrier.stamp`); Upsample reads the stamps of
what it gets, and shows of a damaged group what `vs_cvrs.plugin.damage` says.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from vs_cvrs.carrier import stamp
from vs_cvrs.carrier.levels import to_levels
from vs_cvrs.carrier.stamp import Stamp
from vs_cvrs.plugin.damage import Judge, Verdict
from vs_cvrs.plugin.frames import FrameType
from vs_cvrs.runtime.session import Frames, Session
from vs_cvrs.timeline import GroupTable, Timeline

__all__ = [
    "Downsampler",
    "Processor",
    "Upsampler",
]


@dataclass
class Processor:
    """Makes the output frames of one group from its source frames, in flat group buffers."""

    session: Session
    source: FrameType
    output: FrameType
    table: GroupTable

    def allocate(self, size: int) -> npt.NDArray[np.uint8]:
        """Memory for group buffers."""
        return self.session.allocate(size)

    def process(
        self,
        group: int,
        source: npt.NDArray[np.uint8],
        source_frames: int,
        output: npt.NDArray[np.uint8],
        output_frames: int,
    ) -> Verdict:
        """Read ``source_frames`` frames at the start of one buffer, write the other."""
        return self.compute(
            group, self.source.view(source, source_frames), self.output.view(output, output_frames)
        )

    def compute(self, group: int, source: Frames, output: Frames) -> Verdict:
        """Make the frames of a group."""
        raise NotImplementedError


@dataclass
class Downsampler(Processor):
    """Makes low-rate frames; ``stamp`` is that of frame 0, None for frames without stamps."""

    stamp: Stamp | None

    def compute(self, group: int, source: Frames, output: Frames) -> Verdict:
        self.session.encode(source, output, bits=self.source.bits, low_bits=self.output.bits)
        if self.stamp is not None:
            first = int(self.table.output_begin[group])
            for index, frame in enumerate(output, start=first):
                stamp.write(frame, replace(self.stamp, index=index))
        return Verdict()


@dataclass
class Upsampler(Processor):
    """Restores frames.

    Attributes:
        timeline: the grouping.
        phase: low-rate index of source frame 0.
        stamped: whether frames ought to have stamps; else nothing is judged.
        strict: damage is an error.
        bits: of the levels that the low-rate samples stand for, whatever type they come in.
    """

    timeline: Timeline
    phase: int
    stamped: bool
    strict: bool
    bits: int = 8
    _warned: bool = field(default=False, init=False)
    _judge: Judge = field(init=False)

    def __post_init__(self) -> None:
        self._judge = Judge(
            self.table, self.timeline, self.phase, self.session.checksum, self.output
        )

    def compute(self, group: int, source: Frames, output: Frames) -> Verdict:
        levels = to_levels(source, self.source.top, self.bits)
        damage = self._judge.damage(group, levels) if self.stamped else ""
        if damage and self.strict:
            raise ValueError(damage)
        self.session.decode(source, output, bits=self.source.bits, low_bits=self.bits)
        if not self.stamped:
            return Verdict()
        if not damage:
            return Verdict(True)
        self._judge.repeat_if_better(group, levels, output)
        warning = "" if self._warned else f"{damage}; what is restored of it is not what was sent"
        self._warned = True
        return Verdict(False, warning)
