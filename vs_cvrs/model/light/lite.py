"""The light model: time 2x at full size, cheap enough for CPUs.

The same three parts as the paper's model (Zhang & Chen, CVPR 2025) - down network, invertible
steganography (IMSM), up network - with two economies. Time is folded into the batch, so that every
convolution is two-dimensional; neighbouring frames meet by shifting some channels along time
(temporal shift module, Lin et al., ICCV 2019), which costs no arithmetic. Pairs of high-rate frames
are folded into channels, and all features live at half or quarter size.

Feature tensors are (batch * low-rate frames, channels, height, width), channels last in memory.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vs_cvrs.model.base import Size
from vs_cvrs.model.light.base import HalfRateModel, ImsmModel
from vs_cvrs.model.light.blocks import Trunk
from vs_cvrs.model.light.folding import fold, unfold
from vs_cvrs.model.light.imsm import LiteImsm
from vs_cvrs.model.strips import in_strips
from vs_cvrs.timeline import SIZE_MULTIPLE

__all__ = [
    "LiteModel",
]


class LiteModel(ImsmModel, HalfRateModel):
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
    takes_tf32: ClassVar[bool] = True

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

    def receiver_parameters(self) -> list[nn.Parameter]:
        return list(self.up.parameters())

    def downsample(self, high: Tensor, size: Size) -> Tensor:
        """(B, 3, T, H, W) to the latent (B, 3, ceil(T/2), H and W rounded up to multiples of 4)."""
        b = high.shape[0]
        high = self._padded(high, size)
        return in_strips(
            lambda x: unfold(self.down(fold(x, 2, 2), b), b, 1, 2),
            high,
            self.down.radius,
            self.down.held // 2,
            SIZE_MULTIPLE,
        )

    def upsample(self, latent: Tensor, size: Size) -> Tensor:
        """Latent (B, 3, t, h, w) to (B, 3, T, H, W), T up to 2t, H and W up to h and w."""
        b = latent.shape[0]
        self._check_restored(latent, size)
        high = in_strips(
            lambda x: unfold(self.up(fold(x, 1, 2), b), b, 2, 2),
            latent,
            self.up.radius,
            self.up.held,
            SIZE_MULTIPLE,
        )
        return high[:, :, : size[0], : size[1], : size[2]]
