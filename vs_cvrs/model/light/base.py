"""What the light models have in common."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vs_cvrs.model.base import CvrsModel, Size
from vs_cvrs.model.light.blocks import Net, Shape, check_blocks
from vs_cvrs.model.light.folding import SHIFT_FRACTION
from vs_cvrs.model.light.imsm import LiteImsm
from vs_cvrs.model.strips import in_strips
from vs_cvrs.timeline import SIZE_MULTIPLE

__all__ = [
    "HalfRateModel",
    "ImsmModel",
    "LightModel",
]


class LightModel(CvrsModel):
    """What the light models share: their options' ranges, and weights channels last."""

    refines = True

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        try:
            return cls(**options)
        except TypeError as error:
            raise ValueError(f"options of a {cls.architecture} model: {error}") from error

    def _check_layers(
        self,
        other: LightModel,
        names: tuple[str, ...] = ("width", "down_blocks", "up_blocks", "cells", "hidden"),
    ) -> None:
        """Raise ValueError where an option that another one's layers hang on differs from its."""
        for name in names:
            if self.options[name] != other.options[name]:
                raise ValueError(
                    f"a {self.architecture} model with {name} {self.options[name]!r} cannot begin "
                    f"as a {other.architecture} model with {name} {other.options[name]!r}"
                )

    def _check_options(self) -> None:
        """Raise ValueError for the first of ``options`` that is out of range."""
        for name, value in self.options.items():
            if name.endswith("blocks"):
                check_blocks(name, value)
            elif name.endswith("cells"):
                if not 0 <= value <= 64:
                    raise ValueError(f"{name} must be 0 to 64, got {value}")
            elif name.endswith(("_half", "_quarter")):
                Shape.parse(name, value, between=name.startswith("shared"))
            elif name == "enlarger":
                Net.parse(name, value)
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


class HalfRateModel(LightModel):
    """A light model for time 2x, space 1x.

    The low-rate size is the high-rate one rounded up to multiples of 4; an odd number of high-rate
    frames is filled up with the last one.
    """

    time_factor = Fraction(2)
    space_factor = Fraction(1)
    group_length = 4

    def pads(self, high: tuple[int, int], low: tuple[int, int]) -> bool:
        return True

    def _padded(self, high: Tensor, size: Size) -> Tensor:
        """High-rate frames with what is repeated of them, for a latent of ``size``."""
        t, h, w = high.shape[2:]
        wanted = (-(-t // 2), *(-(-n // SIZE_MULTIPLE) * SIZE_MULTIPLE for n in (h, w)))
        if size != wanted:
            raise ValueError(
                f"a {self.architecture} model makes {wanted} of {(t, h, w)}, not {size}"
            )
        padding = (0, size[2] - w, 0, size[1] - h, 0, 2 * size[0] - t)
        return F.pad(high, padding, mode="replicate") if any(padding) else high

    def _check_restored(self, latent: Tensor, size: Size) -> None:
        t, h, w = latent.shape[2:]
        if not all(0 < n <= m for n, m in zip(size, (2 * t, h, w), strict=True)):
            raise ValueError(
                f"a {self.architecture} model makes at most {(2 * t, h, w)} of {(t, h, w)}, "
                f"not {size}"
            )


class ImsmModel(LightModel):
    """A light model whose latent goes through the light IMSM."""

    imsm: LiteImsm

    def imsm_parameters(self) -> list[nn.Parameter]:
        return list(self.imsm.parameters())

    def embed(self, latent: Tensor) -> Tensor:
        return in_strips(self.imsm, latent, self.imsm.radius, self.imsm.held, SIZE_MULTIPLE)

    def extract(self, low: Tensor) -> Tensor:
        return in_strips(self.imsm.inverse, low, self.imsm.radius, self.imsm.held, SIZE_MULTIPLE)
