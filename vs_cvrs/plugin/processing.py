"""What the group filter asks of Python for each group: making its frames, and judging them.

Downsample stamps the frames that it makes (`vs_cvrs.carrier.stamp`); Upsample reads the stamps of
what it gets, and shows of a damaged group what `vs_cvrs.plugin.damage` says.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from vs_cvrs.carrier import stamp
from vs_cvrs.carrier.levels import Levels, to_levels
from vs_cvrs.carrier.stamp import Mode, Sent, Stamp
from vs_cvrs.plugin.damage import Judge, Verdict
from vs_cvrs.plugin.frames import FrameType
from vs_cvrs.plugin.interpolation import interpolate, stretch
from vs_cvrs.plugin.selfcheck import SelfCheck
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
    """Makes low-rate frames.

    Attributes:
        timeline: the grouping.
        stamp: that of frame 0, None for frames without stamps.
        check: whether groups are restored and compared with their source.
        headroom: levels by which black and white may move where that helps.
    """

    timeline: Timeline
    stamp: Stamp | None
    check: bool
    headroom: int
    _check: SelfCheck = field(init=False)

    def __post_init__(self) -> None:
        self._check = SelfCheck(
            self.session,
            self.source,
            self.output,
            self.table,
            self.timeline,
            self.headroom,
            self._mark if self.stamp is not None else None,
        )

    def compute(self, group: int, source: Frames, output: Frames) -> Verdict:
        if self.check:
            outcome = self._check.encode(group, source, output)
            found = {"CVRSPsnr": outcome.psnr, "CVRSHidden": int(outcome.sent.mode == Mode.HIDDEN)}
            if outcome.psnr_removed is not None:
                found["CVRSPsnrRemoved"] = outcome.psnr_removed
            return Verdict(properties=found)
        self.session.encode(source, output, bits=self.source.bits, low_bits=self.output.bits)
        if self.stamp is not None:
            self._mark(group, output, Sent())
        return Verdict()

    def _mark(self, group: int, low: Frames, sent: Sent) -> None:
        """Stamp the low-rate frames of a group."""
        assert self.stamp is not None
        first = int(self.table.output_begin[group])
        for index, frame in enumerate(low, start=first):
            stamp.write(frame, replace(self.stamp, index=index, sent=sent))


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
        if not self.stamped:
            self._decode(source, output, Sent())
            return Verdict()
        levels = to_levels(source, self.source.top, self.bits)
        found = self._judge.stamps(group, levels)
        damage = self._judge.damage(group, found)
        if damage and self.strict:
            raise ValueError(damage)
        # Of a damaged group, any frame that is left tells how it was sent.
        sent = next((s.sent for s in found if s and s.checksum == self.session.checksum), Sent())
        if sent.mode == Mode.HIDDEN:
            self._decode(source, output, sent)
        else:
            self._interpolate(group, levels, sent.mode, output)
        if not damage:
            return Verdict(True)
        if sent.mode == Mode.HIDDEN:
            self._judge.repeat_if_better(group, stretch(levels, sent), output)
        warning = "" if self._warned else f"{damage}; what is restored of it is not what was sent"
        self._warned = True
        return Verdict(False, warning)

    def _decode(self, source: Frames, output: Frames, sent: Sent) -> None:
        span = (sent.black, sent.white)
        self.session.decode(source, output, bits=self.source.bits, low_bits=self.bits, span=span)

    def _interpolate(self, group: int, levels: Levels, mode: Mode, output: Frames) -> None:
        """Show a group that hides nothing; frames beyond the clip's ends are left alone."""
        table = self.table
        low_begin, low_end = (int(n) for n in table.source_begin[group : group + 2])
        begin, end = (int(n) for n in table.output_begin[group : group + 2])
        head, output_head = (table.source_head, table.output_head) if group == 0 else (0, 0)
        high = self.timeline.high_begin(self.phase) + np.arange(begin, end)
        interpolate(
            levels[head : head + low_end - low_begin],
            self.timeline.neighbours(self.phase + low_begin, self.phase + low_end, high),
            mode,
            output[output_head : output_head + end - begin],
            self.output,
        )
