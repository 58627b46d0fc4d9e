"""The light model's way between sizes: what a reduction loses, hidden in the levels it leaves.

A level of 8 bits is a multiple of a modulus m, the coarse level, and a residue, -(m - 1) / 2 to
(m - 1) / 2. The sender moves each sample of the plain reduction to the nearest level that has the
residue it wants to send: quantisation index modulation (Chen and Wornell, IEEE Transactions on
Information Theory 47(4), 2001). So the receiver reads residues without error, whatever the picture
is, and the coarse level of every sample, which is off by at most (m - 1) / 2 levels. A network of
the sender makes residues of what enlarging the reduction would not bring back; where there is
nothing to tell, it sends the sample's own residue, and the reduction stays as it was. A network of
the receiver makes of coarse levels and residues what must be added to the enlarged coarse levels.

Of 10 bits the residue has quarters of levels, which carry more with the same networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vs_cvrs.model.light.blocks import Shape, Trunk
from vs_cvrs.model.light.folding import as_clip, as_frames, fold, unfold
from vs_cvrs.model.light.resampling import filled, resampled, restored
from vs_cvrs.model.strips import in_strips

__all__ = ["FACTORS", "Rescaler", "hide", "limits", "reveal"]

FACTORS = (2, 4)
"""Frames are resampled to one of these times the low size."""

_LAST = torch.channels_last
_LEVELS = 255.0
_GREY = 0.5
_COLOURS = 3
_TOLD = 2 * _COLOURS + 2
"""Channels of a low-rate frame: its levels, their residues, and the share of the factor that is
there on either axis."""

_BEYOND = 0.37
"""By how much a residue may pass the largest whole one: in 10 bits too it rounds to no other."""

# What networks see and give is brought to about -1 to 1.
_RESIDUE = 1.0 / 8.0
_DIFFERENCE = 8.0

_LUMA = (0.299, 0.587, 0.114)


def hide(plain: Tensor, residues: Tensor, modulus: int) -> Tensor:
    """The frames in 0..1 nearest to ``plain`` whose levels have these residues.

    ``residues`` are in levels, and need not be whole: they are rounded with the frames. Gradients
    pass to them alone.
    """
    whole = residues.detach().round()
    coarse = modulus * ((_LEVELS * plain.detach() - whole) / modulus).round()
    level = coarse + whole
    # Beyond black and white there are no levels: the next one inside.
    coarse = coarse + modulus * ((level < 0).to(coarse) - (level > _LEVELS).to(coarse))
    return ((coarse + residues) / _LEVELS).clamp(0.0, 1.0)


def reveal(low: Tensor, modulus: int) -> tuple[Tensor, Tensor]:
    """Coarse levels in 0..1, and residues in levels; gradients pass from the residues alone."""
    levels = _LEVELS * low
    coarse = modulus * (levels.detach() / modulus).round()
    return coarse / _LEVELS, levels - coarse


def limits(low: Tensor, modulus: int) -> tuple[Tensor, Tensor]:
    """The lowest and the highest level that have the same coarse level as each of ``low``."""
    coarse, _ = reveal(low, modulus)
    most = (modulus - 1) / 2 / _LEVELS
    return (coarse - most).clamp(0.0, 1.0), (coarse + most).clamp(0.0, 1.0)


class Rescaler(nn.Module):
    """Frames to frames of a smaller size that hide what those lack, and back, each by itself.

    Args:
        factor: one of `FACTORS`.
        shape: of its networks.
    """

    def __init__(self, factor: int, shape: Shape) -> None:
        super().__init__()
        self.factor, self.modulus = factor, shape.modulus
        folded = _COLOURS * factor**2
        inputs = _TOLD + folded
        self.down = Trunk(inputs, _COLOURS, shape.down_width, shape.down_blocks, fold=1)
        self.up = Trunk(_TOLD, folded, shape.up_width, shape.up_blocks, fold=1)
        with torch.no_grad():
            self._begin()

    def _begin(self) -> None:
        """Let residues begin as how luma rises across and down and both within a low-rate pixel."""
        rise = torch.linspace(-1.0, 1.0, self.factor)
        rise = rise / rise.square().mean().sqrt()
        flat = torch.ones(self.factor)
        planes = (torch.outer(flat, rise), torch.outer(rise, flat), torch.outer(rise, rise))
        gain = _LEVELS * _RESIDUE / _DIFFERENCE  # a level of residue for one of difference
        for net in (self.down, self.up):
            net.skip.weight.zero_()
        for colour, plane in enumerate(planes):
            weight = (plane[..., None] * torch.tensor(_LUMA)).flatten() * gain
            self.down.skip.weight[colour, _TOLD:, 0, 0] = weight / self.factor**2
            weight = plane[..., None].expand(-1, -1, _COLOURS).flatten() / gain
            self.up.skip.weight[:, _COLOURS + colour, 0, 0] = weight

    def forward(self, high: Tensor, size: tuple[int, int]) -> Tensor:
        """Frames (B, 3, T, H, W) in 0..1 at height and width ``size``, multiples of 4."""
        b, f = high.shape[0], self.factor
        made = []
        for frame in torch.split(high, 1, dim=2):
            with torch.autocast(high.device.type, enabled=False):
                plain = resampled(frame, *size).clamp(0.0, 1.0)
                around = resampled(plain, f * size[0], f * size[1])
                difference = resampled(frame, *around.shape[-2:]) - around
                told = _told(plain, reveal(plain, self.modulus)[1], high.shape[-2:], f)
                parts = torch.cat((told, fold(difference, 1, f) * _DIFFERENCE), dim=1)
            wanted = self._through(self.down, as_clip(parts, b)).float() / _RESIDUE
            bound = (self.modulus - 1) / 2 + _BEYOND
            made.append(hide(plain, bound * torch.tanh(wanted / bound), self.modulus))
        return torch.cat(made, dim=2)

    def inverse(self, low: Tensor, size: tuple[int, int]) -> Tensor:
        """Frames (B, 3, T, h, w) at height and width ``size``, not clamped."""
        b, _, _, h, w = low.shape
        f = self.factor
        made = []
        for frame in torch.split(low, 1, dim=2):
            coarse, residues = reveal(frame, self.modulus)
            told = as_clip(_told(coarse, residues, size, f), b)
            difference = as_frames(self._through(self.up, told)).float() / _DIFFERENCE
            with torch.autocast(low.device.type, enabled=False):
                around = resampled(coarse, f * h, f * w)
                made.append(restored(around + unfold(difference, b, 1, f), *size))
        return torch.cat(made, dim=2)

    def _through(self, net: Trunk, x: Tensor) -> Tensor:
        b = x.shape[0]

        def chain(part: Tensor) -> Tensor:
            # Frames are alone: nothing passes between them.
            return as_clip(net(as_frames(part).contiguous(memory_format=_LAST), 0), b)

        return in_strips(chain, x, net.radius, net.held, 2)


def _told(levels: Tensor, residues: Tensor, high: Sequence[int], factor: int) -> Tensor:
    """What networks are told of low-rate frames (B, 3, t, h, w): (B * t, `_TOLD`, h, w)."""
    shares = filled(high, levels.shape[-2:], factor)
    there = [torch.full_like(levels[:, :1], share) for share in shares]
    every = as_frames(torch.cat((levels - _GREY, residues * _RESIDUE, *there), dim=1))
    return every.contiguous(memory_format=_LAST)
