"""The light models' invertible steganography (IMSM): coupling cells at quarter size."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vs_cvrs.model.light.blocks import activated3, conv3
from vs_cvrs.model.light.folding import join_columns, shift_time, shifted_rows, split_columns
from vs_cvrs.model.light.tiles import features_like, tiles, worth_tiling

__all__ = [
    "CouplingCell",
    "CouplingNet",
    "LiteImsm",
]


class CouplingNet(nn.Module):
    """The function inside a coupling layer; starts as zero, so that the IMSM starts as identity."""

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = conv3(inputs, hidden)
        self.conv2 = conv3(hidden, outputs, 0.0)

    def forward(self, x: Tensor, groups: int) -> Tensor:
        out: Tensor = self.conv2(shift_time(activated3(self.conv1, x), groups))
        return out.float()

    def in_tiles(self, x: Tensor, groups: int) -> Iterator[tuple[int, slice, Tensor]]:
        """`forward` in pieces: frame, rows, (C, rows, W). These rows of ``x`` may change then."""
        reduced = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if reduced else x.dtype
        hidden = features_like(x, self.conv1.out_channels, dtype)
        for frame, rows, around, inner in tiles(hidden, 1):
            y = activated3(self.conv1, x[frame : frame + 1, :, around])
            hidden[frame, :, rows] = y[0, :, inner]
        for frame, rows, around, inner in tiles(hidden, 1):
            y = self.conv2(shifted_rows(hidden, groups, frame, around))
            yield frame, rows, y[0, :, inner]


class CouplingCell(nn.Module):
    """An invertible cell on the two halves of the channels.

    forward: y1 = x1 + F(x2); s, g = H(y1); y2 = x2 * exp(tanh s) + g
    inverse: s, g = H(y1); x2 = (y2 - g) * exp(-tanh s); x1 = y1 - F(x2)

    In tiles both work in place.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        half = channels // 2
        self.f = CouplingNet(half, half, hidden)
        self.h = CouplingNet(half, channels, hidden)

    def forward(self, x1: Tensor, x2: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        if worth_tiling(x1, self.f.conv1.out_channels):
            for frame, rows, change in self.f.in_tiles(x2, groups):
                x1[frame, :, rows] += change
            for frame, rows, change in self.h.in_tiles(x1, groups):
                s, g = change.chunk(2)
                x2[frame, :, rows].mul_(s.tanh().exp_()).add_(g)
            return x1, x2
        y1 = x1 + self.f(x2, groups)
        s, g = self.h(y1, groups).chunk(2, dim=1)
        return y1, x2 * torch.exp(torch.tanh(s)) + g

    def inverse(self, y1: Tensor, y2: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        if worth_tiling(y1, self.f.conv1.out_channels):
            for frame, rows, change in self.h.in_tiles(y1, groups):
                s, g = change.chunk(2)
                y2[frame, :, rows].sub_(g).mul_(s.tanh().neg_().exp_())
            for frame, rows, change in self.f.in_tiles(y2, groups):
                y1[frame, :, rows] -= change
            return y1, y2
        s, g = self.h(y1, groups).chunk(2, dim=1)
        x2 = (y2 - g) * torch.exp(-torch.tanh(s))
        return y1 - self.f(x2, groups), x2


class LiteImsm(nn.Module):
    """Coupling cells on 4x4 pixels folded into 48 channels, halves swapped from cell to cell.

    One half holds the pixels of even columns, the other those of odd ones, so that each half has a
    neighbour in the other to predict it from.

    Attributes:
        radius: how far the cells see, in pixels. Two convolutions at quarter size see 8 far. A
            cell's first half comes of one coupling function and its second of two; the next cell
            begins with the second half, and adds one function's reach to it.
        held: values held at once per pixel, about.
    """

    def __init__(self, cells: int, hidden: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(CouplingCell(48, hidden) for _ in range(cells))
        self.radius = 8 * (cells + 1)
        self.held = 12 + hidden // 4

    def forward(self, x: Tensor) -> Tensor:
        groups = x.shape[0]
        x1, x2 = split_columns(x)
        for cell in self.cells:
            x2, x1 = cell(x1, x2, groups)
        return join_columns(x1, x2, groups)

    def inverse(self, y: Tensor) -> Tensor:
        groups = y.shape[0]
        y1, y2 = split_columns(y)
        for cell in reversed(self.cells):
            assert isinstance(cell, CouplingCell)
            y1, y2 = cell.inverse(y2, y1, groups)
        return join_columns(y1, y2, groups)
