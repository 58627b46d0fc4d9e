"""The light model's invertible path between the high and the low size.

A frame is resampled to twice or four times the low size. Then, once or twice, the Haar transform
takes each 2x2 pixels apart into their mean and three details, per colour. Coupling cells (Dinh et
al., "Density estimation using Real NVP", ICLR 2017) change means and details by functions of each
other: the means, which are what is sent, take in what the details hold, and the details become what
can be foretold from the means. On the way back the details begin as zeros and the same cells run in
reverse (Xiao et al., "Invertible Image Rescaling", ECCV 2020).

Features are (batch * frames, channels, height, width), channels last, at the smaller size. The
functions have few channels and treat all pixels alike: with 2x2 pixels folded into 48 channels,
which CPUs compute in half the time, they learn less in any time (docs/training.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from vs_cvrs.model.light.blocks import conv3
from vs_cvrs.model.light.folding import as_clip, as_frames, fold, picked, unfold
from vs_cvrs.model.light.fused import activate
from vs_cvrs.model.light.resampling import filled, resampled, restored
from vs_cvrs.model.strips import memory_limit, recomputed

__all__ = ["CONDITIONS", "DETAILS", "MAX_LEVELS", "SpaceStack", "levels_between"]

CONDITIONS = 7
"""What the coupling functions are told of each frame: how much of the multiple is there on either
axis, how many frames its low-rate frame carries (one of four places), whether it is their first."""

MAX_LEVELS = 2
"""Details are taken from up to four times the low size."""

_SLACK = Fraction(1, 20)
"""Of a factor of two: low sizes are rounded to multiples of 4, and a little more loses little."""

_MEANS = 3
DETAILS = 3 * _MEANS
"""Channels of what is taken from each low-rate pixel."""

_GREY = 0.5
_SCALE = 0.8  # details are scaled by exp(-0.8) to exp(0.8) in a cell

_REACH = 3
"""Of a coupling function, in pixels of the features."""

_TILE = 12 << 20
"""Bytes of one layer's features in a tile on a CPU: little enough that the allocator keeps them."""

_LEAST_SIDE = 16
"""Of a tile: below, its surroundings would be most of it."""


def levels_between(high: tuple[int, int], low: tuple[int, int]) -> int:
    """How often to halve between two sizes (height, width), 1 to `MAX_LEVELS`."""
    most = max(Fraction(n, m) for n, m in zip(high, low, strict=True))
    return 1 if most <= 2 + _SLACK else MAX_LEVELS


def _haar() -> Tensor:
    """2x2 pixels, folded as `fold` does, to their mean and details: (12, 12).

    Rows: (mean or detail, colour), means first, on the scale of pixels; the inverse is four times
    its transpose.
    """
    vector = torch.tensor([[0.5, 0.5], [0.5, -0.5]])
    planes = torch.einsum("ay,bx->abyx", vector, vector).flatten(0, 1)
    return torch.einsum("kyx,de->kdyxe", planes, torch.eye(_MEANS)).reshape(4 * _MEANS, 4 * _MEANS)


class SpaceCoupling(nn.Module):
    """The function inside a coupling; starts as zero, so that a new cell is the identity.

    The first convolution sees what is hidden in the means' last bits and runs in float32, whatever
    type the others run in.
    """

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.first = conv3(inputs, width)
        self.told = nn.Linear(CONDITIONS, width, bias=False)
        nn.init.zeros_(self.told.weight)
        self.middle = conv3(width, width)
        self.last = conv3(2 * width, outputs, 0.0)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        device = x.device.type
        with torch.autocast(device, enabled=False):
            y = activate(self.first(x) + self.told(told)[:, :, None, None])
        if torch.is_autocast_enabled(device):
            y = y.to(torch.get_autocast_dtype(device))
        z = activate(self.middle(y))
        out: Tensor = self.last(torch.cat((y, z), dim=1))
        return out.float()

    def pieces(self, x: Tensor, told: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """`forward` in tiles, without gradients: rows, columns and what it gives there."""
        h, w = x.shape[-2:]
        rows, columns = _tile(x, self.first.out_channels, self.last.out_channels)
        for top in range(0, h, rows):
            for left in range(0, w, columns):
                bottom, right = min(top + rows, h), min(left + columns, w)
                upper, outer = max(top - _REACH, 0), max(left - _REACH, 0)
                part = x[:, :, upper : bottom + _REACH, outer : right + _REACH]
                made = self(part.contiguous(memory_format=torch.channels_last), told)
                inside = made[:, :, top - upper :, left - outer :]
                where = slice(top, bottom), slice(left, right)
                yield *where, inside[:, :, : bottom - top, : right - left]


class SpaceCell(nn.Module):
    """An invertible cell on means and details.

    forward: means += F(details); s, g = H(means); details = details * exp(0.8 tanh(s / 2)) + g

    Without gradients both directions work in place.
    """

    def __init__(self, means: int, details: int, width: int) -> None:
        super().__init__()
        self.f = SpaceCoupling(details, means, width)
        self.h = SpaceCoupling(means, 2 * details, width)

    def forward(self, means: Tensor, details: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            means = means + recomputed(self.f, details, told)
            s, g = recomputed(self.h, means, told).chunk(2, dim=1)
            return means, details * torch.exp(_SCALE * torch.tanh(0.5 * s)) + g
        for rows, columns, change in self.f.pieces(details, told):
            means[:, :, rows, columns] += change
        for rows, columns, change in self.h.pieces(means, told):
            s, g = change.chunk(2, dim=1)
            factor = s.mul_(0.5).tanh_().mul_(_SCALE).exp_()
            details[:, :, rows, columns].mul_(factor).add_(g)
        return means, details

    def inverse(self, means: Tensor, details: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            s, g = recomputed(self.h, means, told).chunk(2, dim=1)
            details = (details - g) * torch.exp(-_SCALE * torch.tanh(0.5 * s))
            return means - recomputed(self.f, details, told), details
        for rows, columns, change in self.h.pieces(means, told):
            s, g = change.chunk(2, dim=1)
            factor = s.mul_(0.5).tanh_().mul_(-_SCALE).exp_()
            details[:, :, rows, columns].sub_(g).mul_(factor)
        for rows, columns, change in self.f.pieces(details, told):
            means[:, :, rows, columns] -= change
        return means, details


class SpaceLevel(nn.Module):
    """Frames at twice a size to that size, and back.

    Args:
        width: channels inside the coupling functions.
        cells: coupling cells.
    """

    haar: Tensor

    def __init__(self, width: int, cells: int) -> None:
        super().__init__()
        self.register_buffer("haar", _haar(), persistent=False)
        self.cells = nn.ModuleList(SpaceCell(_MEANS, DETAILS, width) for _ in range(cells))

    def forward(
        self, high: Tensor, size: tuple[int, int], frames: Sequence[int], told: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Frames ``frames`` of (B, 3, T, H, W), brought to ``size``; not clamped.

        ``told`` is (B * frames, `CONDITIONS`). Returns (B, 3, frames, height, width) and what was
        taken from it, (B, `DETAILS`, frames, height, width).
        """
        groups = high.shape[0]
        means, details = self._take_apart(high, size, frames)
        for cell in self.cells:
            means, details = cell(means, details, told)
        return as_clip(means, groups).add(_GREY), as_clip(details, groups)

    def inverse(
        self, low: Tensor, size: tuple[int, int], told: Tensor, details: Tensor | None = None
    ) -> Tensor:
        """(B, 3, T, h, w) to frames of height and width ``size``, not clamped.

        ``details`` is what `forward` took, as far as it is known; None: zeros. It may be
        overwritten.
        """
        groups = low.shape[0]
        means = (as_frames(low) - _GREY).contiguous(memory_format=torch.channels_last)
        if details is None:
            n, _, h, w = means.shape
            details = means.new_zeros(n, h, w, DETAILS).permute(0, 3, 1, 2)
        else:
            details = as_frames(details).contiguous(memory_format=torch.channels_last)
        for cell in reversed(self.cells):
            assert isinstance(cell, SpaceCell)
            means, details = cell.inverse(means, details, told)
        return self._put_together(means, details, groups, size)

    def _take_apart(
        self, high: Tensor, size: tuple[int, int], frames: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        b, (h, w) = high.shape[0], size

        def parts_of(x: Tensor) -> Tensor:
            with torch.autocast(x.device.type, enabled=False):
                x = fold(resampled(x, 2 * h, 2 * w) - _GREY, 1, 2)
                return x.permute(0, 2, 3, 1) @ self.haar.T

        if torch.is_grad_enabled():
            parts = parts_of(picked(high, frames, 2))
            means, details = parts[..., :_MEANS], parts[..., _MEANS:]
        else:
            # Frame by frame: nothing but the features is as large as all of them.
            shape = b, len(frames), h, w
            means, details = (high.new_empty(*shape, n) for n in (_MEANS, DETAILS))
            for place, index in enumerate(frames):
                parts = parts_of(high[:, :, index : index + 1])
                parts = parts.reshape(b, h, w, -1)
                means[:, place], details[:, place] = parts[..., :_MEANS], parts[..., _MEANS:]
            means, details = means.flatten(0, 1), details.flatten(0, 1)
        means, details = (x.contiguous().permute(0, 3, 1, 2) for x in (means, details))
        return means, details

    def _put_together(
        self, means: Tensor, details: Tensor, groups: int, size: tuple[int, int]
    ) -> Tensor:
        def frames_of(means: Tensor, details: Tensor, groups: int) -> Tensor:
            with torch.autocast(means.device.type, enabled=False):
                parts = torch.cat((means, details), dim=1).permute(0, 2, 3, 1)
                frames = unfold((parts @ (4.0 * self.haar)).permute(0, 3, 1, 2), groups, 1, 2)
                return restored(frames.add(_GREY), *size)

        if torch.is_grad_enabled():
            return frames_of(means, details, groups)
        count = means.shape[0] // groups
        out = means.new_empty(groups, 3, count, *size)
        for index in range(means.shape[0]):
            made = frames_of(means[index : index + 1], details[index : index + 1], 1)
            out[index // count, :, index % count] = made[0, :, 0]
        return out


class SpaceStack(nn.Module):
    """The path through one or several levels.

    Args:
        levels: 1 to `MAX_LEVELS`.
        width, cells: of each level.
    """

    def __init__(self, levels: int, width: int, cells: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(SpaceLevel(width, cells) for _ in range(levels))

    def forward(
        self,
        high: Tensor,
        size: tuple[int, int],
        frames: Sequence[int],
        told: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Frames at the low size, not clamped, and the last level's details.

        Through as many of the last levels as the sizes need.

        Args:
            high: (B, 3, T, H, W).
            size: height and width of the low-rate frames, multiples of 4.
            frames: indices of those to take.
            told: (frames, `CONDITIONS` - 2): what is known of each but its size.

        Returns:
            (B, 3, frames, height, width) and (B, `DETAILS`, frames, height, width).
        """
        levels = self._between((high.shape[3], high.shape[4]), size)
        left = 2 ** len(levels)
        told = _told(high.shape[-2:], size, left, told, high.shape[0])
        x, details = high, high
        for level in levels:
            left //= 2
            x, details = level(x, (size[0] * left, size[1] * left), frames, told)
            frames = range(len(frames))
        return x, details

    def inverse(
        self, low: Tensor, size: tuple[int, int], told: Tensor, details: Tensor | None = None
    ) -> Tensor:
        """(B, 3, T, h, w) to frames of height and width ``size``, not clamped.

        ``details`` are the last level's, as far as they are known; they may be overwritten.
        """
        h, w = low.shape[-2:]
        levels = self._between(size, (h, w))
        multiple = 2 ** len(levels)
        told = _told(size, (h, w), multiple, told, low.shape[0])
        reached, x = 1, low
        for level in reversed(levels):
            reached *= 2
            whole = h * reached, w * reached
            x = level.inverse(x, size if reached == multiple else whole, told, details)
            details = None
        return x

    def _between(self, high: tuple[int, int], low: tuple[int, int]) -> list[SpaceLevel]:
        levels = [level for level in self.levels if isinstance(level, SpaceLevel)]
        return levels[-levels_between(high, low) :]


def _told(
    high: Sequence[int], low: tuple[int, int], multiple: int, told: Tensor, groups: int
) -> Tensor:
    there = [told.new_full((told.shape[0], 1), part) for part in filled(high, low, multiple)]
    every = torch.cat((*there, told), dim=1)
    return every.repeat(groups, 1)


def _tile(x: Tensor, channels: int, outputs: int) -> tuple[int, int]:
    """Rows and columns of a tile of features (N, C, h, w) in which a coupling is computed."""
    n, inputs, h, w = x.shape
    area = h * w
    if x.device.type == "cpu":
        area = min(area, _TILE // (n * max(channels, outputs) * x.element_size()))
    limit = memory_limit()
    if limit is not None:
        held = inputs + 3 * channels + 2 * outputs
        area = min(area, limit // (n * held * x.element_size()))
    if area >= h * w:
        return h, w
    if area >= w * 4 * _LEAST_SIDE:
        return area // w, w
    side = max(_LEAST_SIDE, math.isqrt(area))
    rows = min(h, side)
    return rows, min(w, max(_LEAST_SIDE, area // rows))
