"""The light model: time 2x at full size, cheap enough for CPUs.

The same three parts as the paper's model (Zhang & Chen, CVPR 2025) - down network, invertible
steganography (IMSM), up network - with two economies. Time is folded into the batch, so that every
convolution is two-dimensional; neighbouring frames meet by shifting some channels along time
(temporal shift module, Lin et al., ICCV 2019), which costs no arithmetic. Pairs of high-rate frames
are folded into channels, and all features live at half or quarter size.

Feature tensors are (batch * low-rate frames, channels, height, width), channels last in memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vs_cvrs.model.base import CvrsModel, Size
from vs_cvrs.model.fused import SLOPE, activate, activated, added
from vs_cvrs.model.strips import in_strips
from vs_cvrs.timeline import SIZE_MULTIPLE

__all__ = [
    "SHIFT_FRACTION",
    "Blocks",
    "LightModel",
    "LiteImsm",
    "LiteModel",
    "blocks_reach",
    "check_blocks",
    "conv3",
    "fold",
    "run_blocks",
    "unfold",
]

SHIFT_FRACTION = 8
_RESIDUAL_INIT = 0.1

_TILE = 8 << 20
"""Bytes of features in a tile on a CPU: a few of them stay in the cache, and the allocator gives
their memory to the next ones without asking the system for it."""


def fold(x: Tensor, frames: int, factor: int) -> Tensor:
    """Fold ``frames`` consecutive frames and ``factor`` x ``factor`` pixels into channels.

    (B, C, T, H, W) -> (B * T/frames, frames * factor^2 * C, H/factor, W/factor), channels last,
    channel order (frame, dy, dx, c).
    """
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t // frames, frames, h // factor, factor, w // factor, factor)
    x = x.permute(0, 2, 4, 6, 3, 5, 7, 1)
    x = x.reshape(b * t // frames, h // factor, w // factor, frames * factor * factor * c)
    return x.permute(0, 3, 1, 2)


def unfold(x: Tensor, groups: int, frames: int, factor: int) -> Tensor:
    """Inverse of `fold`; ``groups`` is the batch size B that it gives back."""
    n, channels, h, w = x.shape
    c = channels // (frames * factor * factor)
    x = x.permute(0, 2, 3, 1).reshape(groups, n // groups, h, w, frames, factor, factor, c)
    x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)
    return x.reshape(groups, c, n // groups * frames, h * factor, w * factor)


def split_columns(x: Tensor) -> tuple[Tensor, Tensor]:
    """Fold 4 x 4 pixels into channels, even and odd columns apart.

    (B, C, T, H, W) -> twice (B * T, 8 * C, H/4, W/4), channels last, channel order (dy, dx, c).
    """
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t, h // 4, 4, w // 4, 2, 2).permute(7, 0, 2, 3, 5, 4, 6, 1)
    even, odd = x.reshape(2, b * t, h // 4, w // 4, 8 * c).permute(0, 1, 4, 2, 3)
    return even, odd


def join_columns(even: Tensor, odd: Tensor, groups: int) -> Tensor:
    """Inverse of `split_columns`; ``groups`` is the batch size B that it gives back."""
    n, channels, h, w = even.shape
    x = even.new_empty(groups, channels // 8, n // groups, h * 4, w * 4)
    columns = x.view(groups, channels // 8, n // groups, h, 4, w, 2, 2)
    for place, half in enumerate((even, odd)):
        folded = half.permute(0, 2, 3, 1).reshape(groups, n // groups, h, w, 4, 2, channels // 8)
        columns[..., place].copy_(folded.permute(0, 6, 1, 2, 4, 3, 5))
    return x


def shift_time(x: Tensor, groups: int) -> Tensor:
    """Take an eighth of the channels from the previous frame and an eighth from the next.

    Nothing crosses the ends of a group: there the missing frame counts as zeros.
    """
    n, c, h, w = x.shape
    k = c // SHIFT_FRACTION
    v = x.permute(0, 2, 3, 1).reshape(groups, n // groups, h, w, c)
    before = F.pad(v[:, :-1, ..., :k], (0, 0, 0, 0, 0, 0, 1, 0))
    after = F.pad(v[:, 1:, ..., k : 2 * k], (0, 0, 0, 0, 0, 0, 0, 1))
    v = torch.cat((before, after, v[..., 2 * k :]), dim=-1)
    return v.reshape(n, h, w, c).permute(0, 3, 1, 2)


def _shifted_rows(x: Tensor, groups: int, frame: int, rows: slice) -> Tensor:
    """Some rows of a frame of ``shift_time(x, groups)``, (1, C, rows, W)."""
    n, c, _, w = x.shape
    k = c // SHIFT_FRACTION
    position, length = frame % (n // groups), n // groups
    v = x.permute(0, 2, 3, 1)[:, rows]
    nothing = x.new_zeros(()).expand(v.shape[1], w, k)
    before = v[frame - 1, ..., :k] if position > 0 else nothing
    after = v[frame + 1, ..., k : 2 * k] if position < length - 1 else nothing
    return torch.cat((before, after, v[frame, ..., 2 * k :]), dim=-1)[None].permute(0, 3, 1, 2)


def _in_tiles(x: Tensor, channels: int) -> bool:
    """Whether to compute features of ``x``'s size tile by tile.

    GPUs have no use for it, gradients need it all, and what is small is faster at once.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return False
    return x[:, 0].numel() * channels * x.element_size() > 3 * _TILE


class _Tile(NamedTuple):
    """Rows of a frame; with those around them, and where they lie among these."""

    frame: int
    rows: slice
    around: slice
    inner: slice


def _tiles(x: Tensor, radius: int) -> Iterator[_Tile]:
    """Equal tiles of features, of an even number of rows, with ``radius`` rows around them."""
    n, c, h, w = x.shape
    count = -(-c * h * w * x.element_size() // _TILE)
    step = -(-h // count)
    step += step % 2
    for frame in range(n):
        for start in range(0, h, step):
            stop = min(start + step, h)
            first = max(start - radius, 0)
            inner = slice(start - first, stop - first)
            yield _Tile(frame, slice(start, stop), slice(first, min(stop + radius, h)), inner)


def _like(x: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """Uninitialised features of another number of channels and type, channels last."""
    n, _, h, w = x.shape
    made = torch.empty(n, channels, h, w, dtype=dtype, device=x.device)
    return made.contiguous(memory_format=torch.channels_last)


def conv3(inputs: int, outputs: int, gain: float = 1.0) -> nn.Conv2d:
    """3x3 convolution, He initialisation times ``gain``, zero bias."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, a=SLOPE)
    with torch.no_grad():
        conv.weight.mul_(gain)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _activated3(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``activate(conv(x))`` for a `conv3`."""
    return activated(x, conv.weight, conv.bias, padding=1)


class ResidualBlock(nn.Module):
    """x + conv(act(conv(shift_time(x)))), both 3x3. Without gradients it may overwrite x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = conv3(width, width)
        self.conv2 = conv3(width, width, _RESIDUAL_INIT)

    def forward(self, x: Tensor, groups: int) -> Tensor:
        return added(self.conv2, _activated3(self.conv1, shift_time(x, groups)), x)

    def in_tiles(self, x: Tensor, spare: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """`forward`, and what is spare then. Overwrites ``spare``, a tensor like ``x``."""
        for frame, rows, around, inner in _tiles(x, 2):
            y = self.conv2(_activated3(self.conv1, _shifted_rows(x, groups, frame, around)))
            torch.add(x[frame, :, rows], y[0, :, inner], out=spare[frame, :, rows])
        return spare, x


class CoarseBlock(nn.Module):
    """A residual block at half the trunk's size and twice its width: reach for larger motion.

    ``reduce`` and ``expand`` are 1x1 convolutions on 2x2 pixels folded into channels in the order
    (dy, dx, c). They are computed without folding: as a 2x2 convolution of stride 2, and by adding
    to a view of the features. Without gradients it may overwrite x.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(4 * width, 2 * width, 1)
        self.conv = conv3(2 * width, 2 * width)
        self.expand = nn.Conv2d(2 * width, 4 * width, 1)
        with torch.no_grad():
            self.expand.weight.mul_(_RESIDUAL_INIT)

    def forward(self, x: Tensor, groups: int) -> Tensor:
        n, c, h, w = x.shape
        y = self.expand(_activated3(self.conv, shift_time(self._reduced(x), groups)))
        y = y.permute(0, 2, 3, 1).reshape(n, h // 2, w // 2, 2, 2, c)
        x = x.contiguous(memory_format=torch.channels_last)
        if not torch.is_grad_enabled():
            _unfolded(x).add_(y)
            return x
        out: Tensor = (_unfolded(x) + y).transpose(2, 3).reshape(n, h, w, c)
        return out.permute(0, 3, 1, 2)

    def in_tiles(self, x: Tensor, spare: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """`forward` in place, and what is spare then. Overwrites ``spare``, a tensor like ``x``."""
        n, c, h, w = x.shape
        memory = spare.permute(0, 2, 3, 1).reshape(-1)[: x.numel() // 2]
        coarse = memory.view(n, h // 2, w // 2, 2 * c).permute(0, 3, 1, 2)
        for frame, rows, _, _ in _tiles(x, 0):
            half = slice(rows.start // 2, rows.stop // 2)
            coarse[frame, :, half] = self._reduced(x[frame : frame + 1, :, rows])[0]
        for frame, rows, around, inner in _tiles(coarse, 1):
            y = _activated3(self.conv, _shifted_rows(coarse, groups, frame, around))
            y = self.expand(y[:, :, inner]).permute(0, 2, 3, 1)
            target = x[frame : frame + 1, :, 2 * rows.start : 2 * rows.stop]
            _unfolded(target).add_(y.reshape(1, -1, w // 2, 2, 2, c))
        return x, spare

    def _reduced(self, x: Tensor) -> Tensor:
        kernel = self.reduce.weight.reshape(-1, 2, 2, x.shape[1]).permute(0, 3, 1, 2)
        return activated(x, kernel, self.reduce.bias, stride=2)


def _unfolded(x: Tensor) -> Tensor:
    """Features (N, C, H, W), channels last, seen as (N, H/2, W/2, dy, dx, C)."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).view(n, h // 2, 2, w // 2, 2, c).transpose(2, 3)


_BLOCKS: dict[str, type[ResidualBlock | CoarseBlock]] = {"h": ResidualBlock, "q": CoarseBlock}


class Blocks(nn.Module):
    """Residual blocks of ``width`` channels, a letter each: "h" as they are, "q" at half the size.

    Attributes:
        reach: how far they see, in pixels of the features.
    """

    def __init__(self, width: int, letters: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_BLOCKS[kind](width) for kind in letters)
        self.reach = blocks_reach(0, letters)

    def forward(self, x: Tensor, groups: int) -> Tensor:
        return run_blocks(self.blocks, x, groups)


def check_blocks(name: str, letters: str) -> None:
    """Raises ValueError, naming the option, for letters that are no blocks."""
    if not set(letters) <= set(_BLOCKS) or len(letters) > 64:
        raise ValueError(f"{name} must be up to 64 letters of 'h', 'q', got {letters!r}")


def blocks_reach(reach: int, letters: str) -> int:
    """How far blocks see that are followed by layers that see ``reach`` far."""
    for kind in reversed(letters):
        # What is in a quarter-size pixel sees all that is in its neighbours.
        reach = reach + 2 if kind == "h" else reach + reach % 2 + 2
    return reach


def run_blocks(blocks: nn.ModuleList, x: Tensor, groups: int) -> Tensor:
    """Blocks one after the other; may overwrite ``x`` where no gradients are wanted."""
    if not _in_tiles(x, x.shape[1]):
        for block in blocks:
            x = block(x, groups)
        return x
    x = x.contiguous(memory_format=torch.channels_last)
    spare = torch.empty_like(x)
    for block in blocks:
        assert isinstance(block, (ResidualBlock, CoarseBlock))
        x, spare = block.in_tiles(x, spare, groups)
    return x


class Trunk(nn.Module):
    """A linear skip plus what residual blocks of ``width`` channels add to it.

    The skip carries the picture and runs in float32 whatever type the convolutions run in: half
    precision would cost a picture more than hiding does. The first convolution sees what is hidden
    in the picture's last bits and runs in float32 too; in bfloat16 it would cost 0.04 dB of
    restored frames at 43 dB.

    Attributes:
        radius: how far it sees, in pixels of the picture.
        held: values held at once per pixel of the picture and low-rate frame, about.
    """

    def __init__(self, inputs: int, outputs: int, width: int, blocks: str) -> None:
        super().__init__()
        self.first = conv3(inputs, width)
        self.blocks = nn.ModuleList(_BLOCKS[kind](width) for kind in blocks)
        self.last = conv3(width, outputs, _RESIDUAL_INIT)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.radius = 2 * (blocks_reach(1, blocks) + 1)
        # Features twice at half size (the rest is tiles); what goes in and out, folded too.
        self.held = (width + inputs + outputs) // 2

    def forward(self, x: Tensor, groups: int) -> Tensor:
        device = x.device.type
        if _in_tiles(x, self.first.out_channels):
            return self._in_tiles(x, groups)
        with torch.autocast(device, enabled=False):
            out: Tensor = self.skip(x)
            features = activate(self.first(x))
        if torch.is_autocast_enabled(device):
            features = features.to(torch.get_autocast_dtype(device))
        out += self.last(run_blocks(self.blocks, features, groups))
        return out

    def _in_tiles(self, x: Tensor, groups: int) -> Tensor:
        """`forward` with little memory and without gradients."""
        exact = functools.partial(torch.autocast, "cpu", enabled=False)
        reduced = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if reduced else x.dtype
        features = _like(x, self.first.out_channels, dtype)
        with exact():
            for frame, rows, around, inner in _tiles(features, 1):
                y = self.first(x[frame : frame + 1, :, around])[0, :, inner]
                features[frame, :, rows] = activate(y)
        features = run_blocks(self.blocks, features, groups)
        out = _like(x, self.last.out_channels, x.dtype)
        for frame, rows, around, inner in _tiles(features, 1):
            with exact():
                base = self.skip(x[frame : frame + 1, :, rows])[0]
            y = self.last(features[frame : frame + 1, :, around])[0, :, inner]
            torch.add(base, y, out=out[frame, :, rows])
        return out


class CouplingNet(nn.Module):
    """The function inside a coupling layer; starts as zero, so that the IMSM starts as identity."""

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = conv3(inputs, hidden)
        self.conv2 = conv3(hidden, outputs, 0.0)

    def forward(self, x: Tensor, groups: int) -> Tensor:
        out: Tensor = self.conv2(shift_time(activate(self.conv1(x)), groups))
        return out.float()

    def in_tiles(self, x: Tensor, groups: int) -> Iterator[tuple[int, slice, Tensor]]:
        """`forward` in pieces: frame, rows, (C, rows, W). These rows of ``x`` may change then."""
        hidden = _like(x, self.conv1.out_channels, x.dtype)
        for frame, rows, around, inner in _tiles(hidden, 1):
            y = activate(self.conv1(x[frame : frame + 1, :, around]))
            hidden[frame, :, rows] = y[0, :, inner]
        for frame, rows, around, inner in _tiles(hidden, 1):
            y = self.conv2(_shifted_rows(hidden, groups, frame, around))
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
        if _in_tiles(x1, self.f.conv1.out_channels):
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
        if _in_tiles(y1, self.f.conv1.out_channels):
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


class LightModel(CvrsModel):
    """What the light models share: their options' ranges, the IMSM, and weights channels last."""

    imsm: LiteImsm

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        try:
            return cls(**options)
        except TypeError as error:
            raise ValueError(f"options of a {cls.architecture} model: {error}") from error

    def imsm_parameters(self) -> list[nn.Parameter]:
        return list(self.imsm.parameters())

    def embed(self, latent: Tensor) -> Tensor:
        return in_strips(self.imsm, latent, self.imsm.radius, self.imsm.held, SIZE_MULTIPLE)

    def extract(self, low: Tensor) -> Tensor:
        return in_strips(self.imsm.inverse, low, self.imsm.radius, self.imsm.held, SIZE_MULTIPLE)

    def _check_options(self) -> None:
        """Raise ValueError for the first of ``options`` that is out of range."""
        for name, value in self.options.items():
            if name.endswith("blocks"):
                check_blocks(name, value)
            elif name == "cells":
                if not 0 <= value <= 64:
                    raise ValueError(f"cells must be 0 to 64, got {value}")
            elif name == "interlace":
                if not 0.0 <= value <= 1.0:
                    raise ValueError(f"interlace must be 0 to 1, got {value}")
            elif not SHIFT_FRACTION <= value <= 1024:
                raise ValueError(f"{name} must be {SHIFT_FRACTION} to 1024, got {value}")

    def _store_channels_last(self) -> None:
        for convolution in self.modules():
            if isinstance(convolution, nn.Conv2d):
                weight = convolution.weight.contiguous(memory_format=torch.channels_last)
                convolution.weight = nn.Parameter(weight)


class LiteModel(LightModel):
    """Time 2x, space 1x, see the module's docstring.

    The low-rate size is the high-rate one rounded up to multiples of 4; `downsample` repeats edge
    pixels to get there and `upsample` cuts them off. An odd number of high-rate frames is filled up
    with the last one.

    Args:
        width: channels of the features at half size.
        down_blocks, up_blocks: residual blocks of the down and up network, a letter each:
            "h" at half size, "q" at quarter size.
        cells: coupling cells of the IMSM.
        hidden: channels inside the coupling functions.
        interlace: share of the second frame of a pair in every other pixel (checkerboard) of the
            latent before training. The model begins as weakened interlacing, from which both frames
            can be told apart at once, and learns from there to hide it.
    """

    architecture: ClassVar[str] = "lite"
    takes_bfloat16: ClassVar[bool] = True
    time_factor = Fraction(2)
    space_factor = Fraction(1)
    group_length = 4

    def __init__(
        self,
        width: int = 48,
        down_blocks: str = "hh",
        up_blocks: str = "hhhh",
        cells: int = 2,
        hidden: int = 32,
        interlace: float = 1.0,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "width": width,
            "down_blocks": down_blocks,
            "up_blocks": up_blocks,
            "cells": cells,
            "hidden": hidden,
            "interlace": interlace,
        }
        self._check_options()
        self.down = Trunk(24, 12, width, down_blocks)
        self.imsm = LiteImsm(cells, hidden)
        self.up = Trunk(12, 24, width, up_blocks)
        pixel = torch.arange(12)
        second = interlace * ((pixel // 3 + pixel // 6) % 2).float()
        with torch.no_grad():
            self.down.skip.weight.copy_(
                torch.cat((torch.diag(1 - second), torch.diag(second)), dim=1)[..., None, None]
            )
            self.up.skip.weight.copy_(torch.eye(12).repeat(2, 1)[..., None, None])
        self._store_channels_last()

    def pads(self, high: tuple[int, int], low: tuple[int, int]) -> bool:
        return True

    def downsample(self, high: Tensor, size: Size) -> Tensor:
        """(B, 3, T, H, W) to the latent (B, 3, ceil(T/2), H and W rounded up to multiples of 4)."""
        b, _, t, h, w = high.shape
        wanted = (-(-t // 2), *(-(-n // SIZE_MULTIPLE) * SIZE_MULTIPLE for n in (h, w)))
        if size != wanted:
            raise ValueError(f"a lite model makes {wanted} of {(t, h, w)}, not {size}")
        padding = (0, size[2] - w, 0, size[1] - h, 0, 2 * size[0] - t)
        if any(padding):
            high = F.pad(high, padding, mode="replicate")
        return in_strips(
            lambda x: unfold(self.down(fold(x, 2, 2), b), b, 1, 2),
            high,
            self.down.radius,
            self.down.held // 2,
            SIZE_MULTIPLE,
        )

    def upsample(self, latent: Tensor, size: Size) -> Tensor:
        """Latent (B, 3, t, h, w) to (B, 3, T, H, W), T up to 2t, H and W up to h and w."""
        b, _, t, h, w = latent.shape
        if not all(0 < n <= m for n, m in zip(size, (2 * t, h, w), strict=True)):
            raise ValueError(
                f"a lite model makes at most {(2 * t, h, w)} of {(t, h, w)}, not {size}"
            )
        high = in_strips(
            lambda x: unfold(self.up(fold(x, 1, 2), b), b, 2, 2),
            latent,
            self.up.radius,
            self.up.held,
            SIZE_MULTIPLE,
        )
        return high[:, :, : size[0], : size[1], : size[2]]
