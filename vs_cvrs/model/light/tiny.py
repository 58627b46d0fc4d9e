"""The lightest model: time 2x at full size, a third of the work of `vs_cvrs.model.light.lite`.

Its parts are the same, all at quarter size: 4x4 pixels are folded into channels once on the way in
and unfolded once on the way out. What passes over frames take beside the convolutions weighs as
much here as those do, so the latent is never unfolded between a network and the IMSM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vs_cvrs.model.base import Size, clamped
from vs_cvrs.model.light.base import HalfRateModel
from vs_cvrs.model.light.blocks import Trunk
from vs_cvrs.model.light.folding import fold, fold_rows, split_columns, unfold, unfold_rows
from vs_cvrs.model.light.imsm import CouplingCell, CouplingNet, LiteImsm
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.light.tiles import worth_tiling
from vs_cvrs.model.strips import in_strips
from vs_cvrs.timeline import SIZE_MULTIPLE

__all__ = ["TinyModel"]

_FOLDED = 48

# Between the filters' 0..1 and what the networks see, (255 x - 128) / 256: bfloat16 holds that
# exactly for each of the 256 levels.
_SCALE = 255.0 / 256.0
_BLACK, _WHITE = -0.5, _SCALE - 0.5


class TinyCell(nn.Module):
    """An invertible cell on two halves, whose scale is a number for each channel.

    forward: y1 = x1 + F(x2); y2 = k x2 + H(y1)
    inverse: x2 = (y2 - H(y1)) / k; x1 = y1 - F(x2)

    Without gradients both work in place.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        half = channels // 2
        self.f = CouplingNet(half, half, hidden)
        self.h = CouplingNet(half, half, hidden)
        self.log_scale = nn.Parameter(torch.zeros(half, 1, 1))

    def forward(self, x1: Tensor, x2: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            y1 = x1 + self.f(x2, groups)
            return y1, x2 * self.log_scale.exp() + self.h(y1, groups)
        self._add(x1, self.f, x2, groups)
        x2.mul_(self.log_scale.exp())
        self._add(x2, self.h, x1, groups)
        return x1, x2

    def inverse(self, y1: Tensor, y2: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            x2 = (y2 - self.h(y1, groups)) * (-self.log_scale).exp()
            return y1 - self.f(x2, groups), x2
        self._add(y2, self.h, y1, groups, -1.0)
        y2.mul_((-self.log_scale).exp())
        self._add(y1, self.f, y2, groups, -1.0)
        return y1, y2

    @staticmethod
    def _add(target: Tensor, net: CouplingNet, x: Tensor, groups: int, factor: float = 1.0) -> None:
        if worth_tiling(x, net.conv1.out_channels):
            for frame, rows, change in net.in_tiles(x, groups):
                target[frame, :, rows].add_(change, alpha=factor)
        else:
            target.add_(net(x, groups), alpha=factor)


class TinyImsm(nn.Module):
    """Coupling cells on the even and odd rows of 4x4 pixels folded into 48 channels.

    Attributes:
        radius: how far the cells see, in pixels; see `LiteImsm`.
    """

    def __init__(self, cells: int, hidden: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(TinyCell(_FOLDED, hidden) for _ in range(cells))
        self.radius = 8 * (cells + 1)

    def hide(self, x: Tensor, groups: int) -> Tensor:
        """Folded latent to folded low-rate frames; may overwrite it without gradients."""
        halves = list(x.chunk(2, dim=1))
        for index, cell in enumerate(self.cells):
            first, second = index % 2, 1 - index % 2
            halves[first], halves[second] = cell(halves[first], halves[second], groups)
        return torch.cat(halves, dim=1) if torch.is_grad_enabled() else x

    def reveal(self, x: Tensor, groups: int) -> Tensor:
        """`hide` undone; may overwrite too."""
        halves = list(x.chunk(2, dim=1))
        for index, cell in reversed(list(enumerate(self.cells))):
            assert isinstance(cell, TinyCell)
            first, second = index % 2, 1 - index % 2
            halves[first], halves[second] = cell.inverse(halves[first], halves[second], groups)
        return torch.cat(halves, dim=1) if torch.is_grad_enabled() else x


class TinyModel(HalfRateModel):
    """Time 2x, space 1x, see the module's docstring.

    Args:
        width: channels of the features, at quarter size.
        down_blocks, up_blocks: residual blocks of the down and up network, an "h" each.
        cells: coupling cells of the IMSM; none: the down network makes low-rate frames itself.
        hidden: channels inside the coupling functions.
        interlace: as in `LiteModel`.
    """

    architecture: ClassVar[str] = "tiny"
    takes_bfloat16: ClassVar[bool] = True
    takes_tf32: ClassVar[bool] = True

    def __init__(
        self,
        width: int = 64,
        down_blocks: str = "",
        up_blocks: str = "h",
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
        for name in ("down_blocks", "up_blocks"):
            # Eighth size would need frames of multiples of 8.
            if "q" in self.options[name]:
                raise ValueError(
                    f"{name} of a tiny model must be letters 'h', got {self.options[name]!r}"
                )
        self.down = Trunk(2 * _FOLDED, _FOLDED, width, down_blocks, exact=False, fold=4)
        self.imsm = TinyImsm(cells, hidden)
        self.up = Trunk(_FOLDED, 2 * _FOLDED, width, up_blocks, exact=False, fold=4)
        self._begin(interlace)
        self._store_channels_last()

    def _begin(self, interlace: float) -> None:
        """Let the skips make an interlaced latent, and show it as both of its frames."""
        y, x = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        second = interlace * ((x + y) % 2).float().expand(1, 3, 1, 4, 4)
        mixed = fold_rows(torch.cat((1 - second, second), dim=2), 2).flatten()
        same = fold_rows(torch.arange(_FOLDED).reshape(1, 3, 1, 4, 4), 1).flatten()
        pair = fold_rows(torch.arange(_FOLDED).reshape(1, 3, 1, 4, 4).repeat(1, 1, 2, 1, 1), 2)
        alike = (same[:, None] == pair.flatten()).float()
        _set_linear(self.down, alike * mixed, torch.zeros(_FOLDED))
        _set_linear(self.up, alike.T, torch.zeros(2 * _FOLDED))

    @torch.no_grad()
    def start_from(self, lite: LiteModel) -> None:
        """Take over a `LiteModel`'s skips and its IMSM, whose scales become those on flat grey.

        The IMSM works on rows here and on columns there, so its kernels are transposed.

        Raises:
            ValueError: its IMSM has other layers than this model's.
        """
        self._check_layers(lite, ("cells", "hidden"))
        self._take_skip(self.down, lite.down, 2)
        self._take_skip(self.up, lite.up, 1)
        if not self.options["cells"]:
            return
        scales = _scales_on_grey(lite.imsm)
        pixels = _turned(unfold_rows(torch.arange(_FOLDED).float().view(1, -1, 1, 1), 1, 1))
        # Where each channel of lite's even columns lies among ours of even rows.
        place = split_columns(pixels)[0].flatten().long()
        for cell, source, scale in zip(self.imsm.cells, lite.imsm.cells, scales, strict=True):
            assert isinstance(cell, TinyCell)
            assert isinstance(source, CouplingCell)
            cell.log_scale[place, 0, 0] = scale
            for mine, net in ((cell.f, source.f), (cell.h, source.h)):
                (w1, b1, w2, b2), (its_w1, its_b1, its_w2, its_b2) = map(_parameters, (mine, net))
                its_w1, its_w2 = _turned(its_w1), _turned(its_w2[-len(place) :])
                w1[:, place] = its_w1 / _SCALE
                b1.copy_(its_b1 - its_w1.sum(dim=(1, 2, 3)) * _BLACK / _SCALE)
                w2[place] = its_w2 * _SCALE
                b2[place] = its_b2[-len(place) :] * _SCALE
                if net is source.h:
                    b2[place] += _BLACK * (1.0 - scale.exp())

    @torch.no_grad()
    def _take_skip(self, mine: Trunk, its: Trunk, frames: int) -> None:
        """Let ``mine`` begin as the linear part of ``its``, which takes ``frames`` of a clip."""
        ends = torch.cat((torch.zeros(1, _FOLDED * frames), torch.eye(_FOLDED * frames)))
        clips = unfold_rows(ends[..., None, None], len(ends), frames)
        assert its.last.bias is not None
        made = its.skip(fold(_turned(clips), frames, 2)) + its.last.bias[:, None, None]
        made = _turned(unfold(made, len(ends), 3 - frames, 2))
        folded = fold_rows(made, 3 - frames).flatten(1)
        _set_linear(mine, (folded[1:] - folded[0]).T, folded[0])

    def imsm_parameters(self) -> list[nn.Parameter]:
        return list(self.imsm.parameters())

    def receiver_parameters(self) -> list[nn.Parameter]:
        return list(self.up.parameters())

    def downsample(self, high: Tensor, size: Size) -> Tensor:
        """(B, 3, T, H, W) to the latent (B, 3, ceil(T/2), H and W rounded up to multiples of 4)."""
        return self._lowered(high, size, self._down, 0)

    def embed(self, latent: Tensor) -> Tensor:
        return self._through_cells(latent, self._hide)

    def extract(self, low: Tensor) -> Tensor:
        return self._through_cells(low, self._reveal)

    def upsample(self, latent: Tensor, size: Size) -> Tensor:
        """Latent (B, 3, t, h, w) to (B, 3, T, H, W), T up to 2t, H and W up to h and w."""
        return self._raised(latent, size, self._up, 0)

    def encode(self, high: Tensor, size: Size) -> Tensor:
        """What the stages make one after the other, folded all the way."""

        def chain(x: Tensor, groups: int) -> Tensor:
            return self._hide(_limited(self._down(x, groups)), groups)

        return clamped(self._lowered(high, size, chain, self.imsm.radius), high)

    def decode(self, low: Tensor, size: Size) -> Tensor:
        """What the stages make one after the other, folded all the way."""

        def chain(x: Tensor, groups: int) -> Tensor:
            return self._up(_limited(self._reveal(x, groups)), groups)

        return clamped(self._raised(low, size, chain, self.imsm.radius), low)

    # All below take and give folded frames around grey, and may overwrite what they are given.

    def _down(self, high: Tensor, groups: int) -> Tensor:
        with self._reduced_precision(high):
            latent: Tensor = self.down(high, groups)
        return latent

    def _up(self, latent: Tensor, groups: int) -> Tensor:
        with self._reduced_precision(latent):
            high: Tensor = self.up(latent, groups)
        return high

    def _hide(self, latent: Tensor, groups: int) -> Tensor:
        with self._reduced_precision(latent):
            return self.imsm.hide(latent, groups)

    def _reveal(self, low: Tensor, groups: int) -> Tensor:
        with self._reduced_precision(low):
            return self.imsm.reveal(low, groups)

    def _through_cells(self, x: Tensor, cells: Callable[[Tensor, int], Tensor]) -> Tensor:
        chain = _folded(cells, x.shape[0], 1, 1)
        return in_strips(chain, x, self.imsm.radius, _FOLDED // 4, SIZE_MULTIPLE)

    def _lowered(
        self, high: Tensor, size: Size, chain: Callable[[Tensor, int], Tensor], more: int
    ) -> Tensor:
        """``chain`` on high-rate frames, which sees ``more`` pixels than the down network."""
        radius, held = self.down.radius + more, self.down.held // 2
        folded = _folded(chain, high.shape[0], 2, 1)
        return in_strips(folded, self._padded(high, size), radius, held, SIZE_MULTIPLE)

    def _raised(
        self, low: Tensor, size: Size, chain: Callable[[Tensor, int], Tensor], more: int
    ) -> Tensor:
        """``chain`` on low-rate frames, which sees ``more`` pixels than the up network."""
        self._check_restored(low, size)
        radius, held = self.up.radius + more, self.up.held
        high = in_strips(_folded(chain, low.shape[0], 1, 2), low, radius, held, SIZE_MULTIPLE)
        return high[:, :, : size[0], : size[1], : size[2]]


def _folded(
    chain: Callable[[Tensor, int], Tensor], groups: int, frames: int, made: int
) -> Callable[[Tensor], Tensor]:
    """``chain`` as a function from frames to frames: of ``frames`` each it makes ``made``."""

    def on_frames(x: Tensor) -> Tensor:
        x = fold_rows(x, frames)
        if torch.is_grad_enabled():
            return unfold_rows((chain(x * _SCALE + _BLACK, groups) - _BLACK) / _SCALE, groups, made)
        y = chain(x.mul_(_SCALE).add_(_BLACK), groups)
        return unfold_rows(y.sub_(_BLACK).mul_(1.0 / _SCALE), groups, made)

    return on_frames


def _limited(x: Tensor) -> Tensor:
    """What is beyond black and white cut off."""
    return x.clamp(_BLACK, _WHITE) if torch.is_grad_enabled() else x.clamp_(_BLACK, _WHITE)


@torch.no_grad()
def _set_linear(trunk: Trunk, matrix: Tensor, bias: Tensor) -> None:
    """Let the linear part of ``trunk`` be ``matrix`` and ``bias`` on folded frames of 0..1."""
    trunk.skip.weight.copy_(matrix[..., None, None])
    assert trunk.last.bias is not None
    trunk.last.bias.copy_(bias * _SCALE + _BLACK * (1.0 - matrix.sum(dim=1)))


def _parameters(net: CouplingNet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights and bias of the first convolution, and of the second."""
    first, second = net.conv1, net.conv2
    assert first.bias is not None
    assert second.bias is not None
    return first.weight, first.bias, second.weight, second.bias


def _turned(x: Tensor) -> Tensor:
    """Rows for columns."""
    return x.transpose(-1, -2)


def _scales_on_grey(imsm: LiteImsm) -> list[Tensor]:
    """The logarithms of each cell's scales, far from the edges of a flat grey clip."""
    side = 8 * imsm.radius
    x1, x2 = split_columns(torch.full((1, 3, 3, side, side), 0.5))
    scales = []
    for cell in imsm.cells:
        assert isinstance(cell, CouplingCell)
        s = cell.h(x1 + cell.f(x2, 1), 1).chunk(2, dim=1)[0]
        scales.append(torch.tanh(s[1, :, side // 8, side // 8]))
        x2, x1 = cell(x1, x2, 1)
    return scales
