"""The light model's networks for any number of frames in one, and what belongs to them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vs_cvrs.model.light.blocks import Blocks, blocks_reach, conv3
from vs_cvrs.model.light.folding import picked
from vs_cvrs.model.light.fused import activate
from vs_cvrs.timeline import Timeline

__all__ = ["FOLDED", "MAX_SLOTS", "Layout", "TimeNet", "blended", "steadied"]

MAX_SLOTS = 4
"""Frames that a low-rate frame can carry, itself among them."""

FOLDED = 12
"""Channels of 2x2 pixels."""

_LAST_GAIN = 0.1

_AROUND = 7  # pixels


@dataclass(frozen=True)
class Layout:
    """Which high-rate frames the low-rate frames of a group carry.

    Attributes:
        counts: how many, for each low-rate frame; 1 to `MAX_SLOTS`.
        carried: high-rate indices, rising.
        slots: which of ``carried``, ``max(counts)`` for each low-rate frame; what is beyond a
            frame's count repeats its first.
        places: where in ``slots`` each of ``carried`` stands.
    """

    counts: tuple[int, ...]
    carried: tuple[int, ...]
    slots: tuple[int, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, high: int, low: int) -> Self:
        """The layout of a group of ``high`` and ``low`` frames, high at least low."""
        timeline = Timeline(Fraction(high, low), low)
        begins = [timeline.high_begin(j) for j in range(low + 1)]
        owned = []
        for begin, end in itertools.pairwise(begins):
            span = end - begin
            count = min(span, MAX_SLOTS)
            owned.append([begin + k * span // count for k in range(count)])
        counts = tuple(len(frames) for frames in owned)
        most = max(counts)
        first = [0, *itertools.accumulate(counts)]
        return cls(
            counts=counts,
            carried=tuple(index for frames in owned for index in frames),
            slots=tuple(
                first[j] + (k if k < count else 0)
                for j, count in enumerate(counts)
                for k in range(most)
            ),
            places=tuple(j * most + k for j, count in enumerate(counts) for k in range(count)),
        )

    @property
    def shown(self) -> tuple[int, ...]:
        """The high-rate index that each low-rate frame shows."""
        return tuple(self.owned(low)[0] for low in range(len(self.counts)))

    def owned(self, low: int) -> tuple[int, ...]:
        """The high-rate indices that a low-rate frame carries, the one it shows first."""
        first = sum(self.counts[:low])
        return self.carried[first : first + self.counts[low]]

    def around(self, low: int) -> tuple[int, int, tuple[float, ...]] | None:
        """Between which two low-rate frames the others lie that one carries, and where.

        That is 0 to 1 from the one to the other; above 1 behind both, as those of the last one do.
        None: there is one low-rate frame.
        """
        if len(self.counts) == 1:
            return None
        first = min(low, len(self.counts) - 2)
        begin, end = self.shown[first : first + 2]
        places = tuple((index - begin) / (end - begin) for index in self.owned(low)[1:])
        return first, first + 1, places


def _by_count(
    layers: nn.ModuleList, x: Tensor, counts: Sequence[int], inputs: int, outputs: int
) -> Tensor:
    """Give each low-rate frame to the layer of its count; outputs are filled up with zeros.

    Args:
        layers: those for 1, 2, ... frames.
        x: (B * t, C, h, w).
        counts: of the t frames, the same for each group of the batch.
        inputs: channels per frame that a layer takes; 0: all there are.
        outputs: channels per frame that a layer gives; 0: the same for all.
    """
    most = max(counts)

    def run(part: Tensor, count: int) -> Tensor:
        part = part[:, : inputs * count] if inputs else part
        made: Tensor = layers[count - 1](part.contiguous(memory_format=torch.channels_last))
        missing = outputs * (most - count)
        return F.pad(made, (0, 0, 0, 0, 0, missing)) if missing else made

    if len(set(counts)) == 1:
        return run(x, counts[0])
    every = [*counts] * (x.shape[0] // len(counts))
    chosen = {n: [i for i, count in enumerate(every) if count == n] for n in sorted(set(counts))}
    parts = [run(picked(x, indices, 0), count) for count, indices in chosen.items()]
    order = [index for indices in chosen.values() for index in indices]
    return picked(torch.cat(parts), sorted(range(len(order)), key=order.__getitem__), 0)


class TimeNet(nn.Module):
    """`Trunk` with layers at one end for each number of frames that a low-rate frame carries.

    The skip and the first convolution run in float32, for the reasons given there.

    Args:
        width, blocks: as in `Trunk`.
        down: several frames in and one out, else the other way round.

    Attributes:
        reach: how far it sees, in pixels of the features.
        held: values held at once per such pixel and low-rate frame, about.
    """

    def __init__(self, width: int, blocks: str, down: bool) -> None:
        super().__init__()
        self.down = down
        sizes = [FOLDED * count for count in range(1, MAX_SLOTS + 1)]
        if down:
            self.first = nn.ModuleList(conv3(size, width) for size in sizes)
            self.last = nn.ModuleList([conv3(width, FOLDED, _LAST_GAIN)])
            self.skip = nn.ModuleList(nn.Conv2d(size, FOLDED, 1, bias=False) for size in sizes)
        else:
            self.first = nn.ModuleList([conv3(FOLDED, width)])
            self.last = nn.ModuleList(conv3(width, size, _LAST_GAIN) for size in sizes)
            self.skip = nn.ModuleList(nn.Conv2d(FOLDED, size, 1, bias=False) for size in sizes)
        self.body = Blocks(width, blocks)
        self.reach = blocks_reach(1, blocks) + 1
        self.held = 3 * width + 2 * sizes[-1]

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """(B * t, 12 max(counts), h, w) to (B * t, 12, h, w), or the other way round."""
        device = x.device.type
        groups = x.shape[0] // len(counts)
        with torch.autocast(device, enabled=False):
            if self.down:
                out = _by_count(self.skip, x, counts, FOLDED, 0)
                features = activate(_by_count(self.first, x, counts, FOLDED, 0))
            else:
                out = _by_count(self.skip, x, counts, 0, FOLDED)
                features = activate(self.first[0](x))
        if torch.is_autocast_enabled(device):
            features = features.to(torch.get_autocast_dtype(device))
        features = self.body(features, groups)
        out += (
            self.last[0](features)
            if self.down
            else _by_count(self.last, features, counts, 0, FOLDED)
        )
        return out


def steadied(frames: Tensor, still: float) -> Tensor:
    """Frames of a group (B, 3, T, H, W) without the differences that restoring them makes.

    Where nothing moves, restored frames differ by some levels, which is seen as flicker. So around
    each pixel frames become their mean where they lie less than ``still`` levels from it (RMS),
    stay where they lie more than twice that from it, and are weighed in between.
    """
    mean = frames.mean(dim=2, keepdim=True)
    differences = frames - mean
    energy = differences.square().mean(dim=(1, 2)).unsqueeze(1)
    energy = F.avg_pool2d(energy, _AROUND, 1, _AROUND // 2, count_include_pad=False)
    least = (still / 255.0) ** 2
    kept = ((energy - least) / (3.0 * least)).clamp(0.0, 1.0)
    return mean + differences * kept.unsqueeze(2)


def blended(frames: Tensor, carried: Sequence[int], count: int) -> Tensor:
    """Fill in frames between those at the indices ``carried``, linearly; repeat the last."""
    made = []
    place = 0
    for index in range(count):
        while place + 1 < len(carried) and carried[place + 1] <= index:
            place += 1
        frame = frames[:, :, place]
        if carried[place] < index and place + 1 < len(carried):
            share = (index - carried[place]) / (carried[place + 1] - carried[place])
            frame = torch.lerp(frame, frames[:, :, place + 1], share)
        made.append(frame)
    return torch.stack(made, dim=2)
