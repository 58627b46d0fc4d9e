"""What the group filter asks of Python for each group: making its frames, and judging them.

Downsample stamps the frames that it makes (`vs_cvrs.stamp`). Upsample reads the stamps of what it
gets. Where a group is not as it was sent, its hidden motion may be gone, and what a model restores
from it may be worse than a repeated frame. Whether it is, shows without the original:
`TRUSTED_CORRELATION`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from vs_cvrs import stamp
from vs_cvrs.session import Frames, Session
from vs_cvrs.stamp import Stamp
from vs_cvrs.timeline import GroupTable, Timeline, low_size

__all__ = [
    "TRUSTED_CORRELATION",
    "Downsampler",
    "FrameType",
    "Processor",
    "Upsampler",
    "Verdict",
    "to_levels",
]

TRUSTED_CORRELATION = 0.33
"""When what is restored from a damaged group is shown.

A frame that was removed lies between its neighbours: what sets it apart from the nearer one points
towards the other one, if not straight. What damaged hidden data restore to points nowhere. So the
difference of restored and nearer low-rate frame is correlated with the difference of the two
low-rate frames, over all frames of a group that no low-rate frame shows. This needs no original and
knows nothing of the model. Measured: docs/command-line.md.
"""


@dataclass(frozen=True)
class Verdict:
    """What is found out about a group; ``intact`` is None where nothing is known."""

    intact: bool | None = None
    warning: str = ""


@dataclass(frozen=True)
class FrameType:
    """Frames in a group buffer: sample type, bits that are used of it, size."""

    dtype: np.dtype[Any]
    bits: int
    height: int
    width: int

    def view(self, memory: npt.NDArray[np.uint8], count: int) -> Frames:
        """The first ``count`` frames of a group buffer."""
        size = count * 3 * self.height * self.width * self.dtype.itemsize
        return memory[:size].view(self.dtype).reshape(count, 3, self.height, self.width)

    @property
    def top(self) -> float:
        """The level of white."""
        if self.dtype.kind == "f":
            return 1.0
        return float(2**self.bits - 1)


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
        self.session.encode(source, output, bits=self.source.bits)
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
    """

    timeline: Timeline
    phase: int
    stamped: bool
    strict: bool
    _warned: bool = field(default=False, init=False)

    def compute(self, group: int, source: Frames, output: Frames) -> Verdict:
        levels = to_levels(source, self.source)
        damage = self._damage(group, levels) if self.stamped else ""
        if damage and self.strict:
            raise ValueError(damage)
        self.session.decode(source, output, bits=self.source.bits)
        if not self.stamped:
            return Verdict()
        if not damage:
            return Verdict(True)
        self._repeat_if_better(group, levels, output)
        warning = "" if self._warned else f"{damage}; what is restored of it is not what was sent"
        self._warned = True
        return Verdict(False, warning)

    def _damage(self, group: int, levels: npt.NDArray[np.uint8]) -> str:
        """What is wrong with a group's frames; empty when they are as they were sent."""
        begin, end = (int(n) for n in self.table.source_begin[group : group + 2])
        head = self.table.source_head if group == 0 else 0
        found = [stamp.read(frame) for frame in levels[head : head + end - begin]]
        frames = f"frames {begin} to {end - 1} of the clip"
        first = found[0]
        if first is None or None in found:
            return (
                f"{frames} are not as Downsample made them: encoded with loss, converted, scaled, "
                "or from elsewhere"
            )
        if first.checksum != self.session.checksum:
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

    def _repeat_if_better(self, group: int, levels: npt.NDArray[np.uint8], output: Frames) -> None:
        """Show repeated low-rate frames where what is restored cannot be trusted."""
        table = self.table
        begin, end = (int(n) for n in table.output_begin[group : group + 2])
        head, output_head = (table.source_head, table.output_head) if group == 0 else (0, 0)
        low_begin, low_end = (int(n) for n in table.source_begin[group : group + 2])
        shown = output[output_head : output_head + end - begin]
        size = (self.output.height, self.output.width)
        received = levels[head : head + low_end - low_begin]
        low = np.stack([_fit(frame, size) for frame in received])
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


def _fit(low: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A low-rate frame at another size; what only rounds a size up to a multiple of 4 is cut."""
    if tuple(low_size(n, Fraction(1)) for n in size) == low.shape[1:]:
        return low[:, : size[0], : size[1]].astype(np.float32)
    picture = torch.from_numpy(low)[None].to(torch.float32)
    made = F.interpolate(picture, size=size, mode="bicubic", align_corners=False)
    return np.asarray(made[0].clamp(0.0, 255.0).numpy(), dtype=np.float32)


def to_levels(frames: Frames, kind: FrameType) -> npt.NDArray[np.uint8]:
    """Frames of any type as the levels of 8 bits that they stand for."""
    if frames.dtype == np.uint8:
        return frames
    # Samples that are no numbers stand for no level; the session says what is wrong with them.
    with np.errstate(invalid="ignore", over="ignore"):
        levels = np.round(frames.astype(np.float32) * (255.0 / kind.top))
        return np.clip(levels, 0, 255).astype(np.uint8)
