"""Invertible motion steganography (IMSM): the latent hidden in ordinary looking frames, and back.

Zhang & Chen, "Continuous Space-Time Video Resampling with Invertible Motion Steganography",
CVPR 2025.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vs_cvrs.model.paper.blocks import DenseBlock, dense_block_holds, depth_to_space, space_to_depth
from vs_cvrs.model.strips import in_strips

__all__ = ["Imsm", "InvertibleCell"]

_KEPT = 3
"""Channels of the first part of a cell's split."""

_RADIUS = 8
"""How far a cell sees: four 3x3x3 convolutions, and four more on their result."""


class InvertibleCell(nn.Module):
    """An affine coupling whose second half is scaled by at most e and at least 1/e.

    Forward, of x = (x1, x2) with 3 and ``channels - 3`` channels::

        y1 = x1 + F(x2);  s = 2 sigmoid(H(y1)) - 1;  y2 = x2 * exp(s) + G(y1)

    The last convolutions start at zero, so that a new cell is the identity.

    Attributes:
        held: values that a cell holds at once per position, about.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        rest = channels - _KEPT
        self.held = 3 * channels + dense_block_holds(rest)
        self.F = DenseBlock(rest, _KEPT, separable=False, residual=False)
        self.G = DenseBlock(_KEPT, rest, separable=False, residual=False)
        self.H = DenseBlock(_KEPT, rest, separable=False, residual=False)
        for block in (self.F, self.G, self.H):
            nn.init.zeros_(block.conv5.weight)
            if block.conv5.bias is not None:
                nn.init.zeros_(block.conv5.bias)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x[:, :_KEPT], x[:, _KEPT:]
        y1 = x1 + self.F(x2)
        y2 = x2 * torch.exp(self._log_scale(y1)) + self.G(y1)
        return torch.cat((y1, y2), dim=1)

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`."""
        y1, y2 = y[:, :_KEPT], y[:, _KEPT:]
        x2 = (y2 - self.G(y1)) / torch.exp(self._log_scale(y1))
        x1 = y1 - self.F(x2)
        return torch.cat((x1, x2), dim=1)

    def _log_scale(self, y1: Tensor) -> Tensor:
        return 2.0 * torch.sigmoid(self.H(y1)) - 1.0


class Imsm(nn.Module):
    """Cells at half and at a quarter of the size, 12 and 48 channels.

    Args:
        block_num: cells at each of the two sizes.
    """

    def __init__(self, block_num: int) -> None:
        super().__init__()
        # The two identities stand where space is folded to depth, which keeps checkpoints' numbers.
        self.operations = nn.ModuleList(
            [
                nn.Identity(),
                *(InvertibleCell(12) for _ in range(block_num)),
                nn.Identity(),
                *(InvertibleCell(48) for _ in range(block_num)),
            ]
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Latent (B, 3, T, H, W) to frames of the same shape; H and W are multiples of 4.

        Raises:
            ValueError: another height or width.
        """
        _check_size(latent)
        x = latent
        for operation in self.operations:
            if isinstance(operation, InvertibleCell):
                x = in_strips(operation, x, _RADIUS, operation.held)
            else:
                x = space_to_depth(x)
        return depth_to_space(depth_to_space(x))

    def inverse(self, frames: Tensor) -> Tensor:
        """Undo `forward`. The temporal padding is at the group's ends: give the same groups."""
        _check_size(frames)
        x = space_to_depth(space_to_depth(frames))
        for operation in reversed(self.operations):
            if isinstance(operation, InvertibleCell):
                x = in_strips(operation.inverse, x, _RADIUS, operation.held)
            else:
                x = depth_to_space(x)
        return x


def _check_size(x: Tensor) -> None:
    h, w = x.shape[-2:]
    if h % 4 or w % 4:
        raise ValueError(f"Imsm: height and width must be multiples of 4, got {w}x{h}")
