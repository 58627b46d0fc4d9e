"""The convolution blocks that the networks share. Tensors are (batch, channels, frames, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "Conv3d",
    "DenseBlock",
    "ResidualBlock",
    "SeparableConv",
    "dense_block_holds",
    "depth_to_space",
    "space_to_depth",
]

GROWTH = 32
"""Channels that each of a dense block's first four convolutions adds."""


def space_to_depth(x: Tensor) -> Tensor:
    """(B, C, T, H, W) to (B, 4C, T, H/2, W/2), channels in the order (c, dy, dx)."""
    b, c, t, h, w = x.shape
    if h % 2 or w % 2:
        raise ValueError(f"space_to_depth: height and width must be even, got {h}x{w}")
    x = x.reshape(b, c, t, h // 2, 2, w // 2, 2)
    return x.permute(0, 1, 4, 6, 2, 3, 5).reshape(b, c * 4, t, h // 2, w // 2)


def depth_to_space(x: Tensor) -> Tensor:
    """(B, 4C, T, H, W) to (B, C, T, 2H, 2W); undoes `space_to_depth`."""
    b, c, t, h, w = x.shape
    x = x.reshape(b, c // 4, 2, 2, t, h, w)
    return x.permute(0, 1, 4, 5, 2, 6, 3).reshape(b, c // 4, t, h * 2, w * 2)


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d` that takes oneDNN on CPUs whatever the size.

    PyTorch takes a convolution of its own for single clips of few channels, frames and rows
    (at::native::ConvParams::use_mkldnn), which is many times slower: the cells of an IMSM meet that
    bound at ordinary sizes.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if (
            x.device.type == "cpu"
            and x.dtype == torch.float32
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and torch.backends.mkldnn.enabled
            and not torch.is_autocast_enabled("cpu")
        ):
            out: Tensor = torch.ops.aten.mkldnn_convolution(
                x, weight, bias, self.padding, self.stride, self.dilation, self.groups
            )
        else:
            out = super()._conv_forward(x, weight, bias)
        return out


class SeparableConv(nn.Module):
    """A depthwise 3x3x3 convolution followed by a pointwise one, both with bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = Conv3d(in_channels, in_channels, 3, padding=1, groups=in_channels)
        self.pointwise = Conv3d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


class ResidualBlock(nn.Module):
    """``x + conv2(PReLU(conv1(x)))`` with 3x3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Conv3d(channels, channels, 3, padding=1)
        self.conv2 = Conv3d(channels, channels, 3, padding=1)
        self.relu = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(self.relu(self.conv1(x)))
        return out


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the block's input and all earlier outputs.

    LeakyReLU 0.2 follows the first four. A separable block has 1x3x3 kernels and a 3x1x1 one last;
    a full block has 3x3x3 kernels and a 1x1x1 one last.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        separable: which kernels, see above.
        residual: add the input to the output.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, separable: bool, residual: bool
    ) -> None:
        super().__init__()
        kernel, last = ((1, 3, 3), (3, 1, 1)) if separable else ((3, 3, 3), (1, 1, 1))
        self.residual = residual
        widths = [in_channels + i * GROWTH for i in range(5)]
        self.conv1 = _conv(widths[0], GROWTH, kernel)
        self.conv2 = _conv(widths[1], GROWTH, kernel)
        self.conv3 = _conv(widths[2], GROWTH, kernel)
        self.conv4 = _conv(widths[3], GROWTH, kernel)
        self.conv5 = _conv(widths[4], out_channels, last)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, F.leaky_relu(conv(seen), 0.2)), dim=1)
        out: Tensor = self.conv5(seen)
        return x + out if self.residual else out


def dense_block_holds(in_channels: int) -> int:
    """Values that a dense block holds at once per position, about.

    All it has seen twice over, when the last output joins the others, and a copy of it in the
    layout that a convolution works in.
    """
    return 3 * (in_channels + 4 * GROWTH)


def _conv(in_channels: int, out_channels: int, kernel: tuple[int, int, int]) -> Conv3d:
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return Conv3d(in_channels, out_channels, kernel, padding=padding)
