"""What the light models have in common."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from vs_cvrs.model.base import CvrsModel
from vs_cvrs.model.light.blocks import check_blocks
from vs_cvrs.model.light.folding import SHIFT_FRACTION
from vs_cvrs.model.light.imsm import LiteImsm
from vs_cvrs.model.strips import in_strips
from vs_cvrs.timeline import SIZE_MULTIPLE

__all__ = [
    "ImsmModel",
    "LightModel",
]


class LightModel(CvrsModel):
    """What the light models share: their options' ranges, and weights channels last."""

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        try:
            return cls(**options)
        except TypeError as error:
            raise ValueError(f"options of a {cls.architecture} model: {error}") from error

    def _check_options(self) -> None:
        """Raise ValueError for the first of ``options`` that is out of range."""
        for name, value in self.options.items():
            if name.endswith("blocks"):
                check_blocks(name, value)
            elif name.endswith("cells"):
                if not 0 <= value <= 64:
                    raise ValueError(f"{name} must be 0 to 64, got {value}")
            elif name in ("path_mixes_time", "path_through_time"):
                if not isinstance(value, bool):
                    raise ValueError(f"{name} must be true or false, got {value!r}")
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


class ImsmModel(LightModel):
    """A light model whose latent goes through the light IMSM."""

    imsm: LiteImsm

    def imsm_parameters(self) -> list[nn.Parameter]:
        return list(self.imsm.parameters())

    def embed(self, latent: Tensor) -> Tensor:
        return in_strips(self.imsm, latent, self.imsm.radius, self.imsm.held, SIZE_MULTIPLE)

    def extract(self, low: Tensor) -> Tensor:
        return in_strips(self.imsm.inverse, low, self.imsm.radius, self.imsm.held, SIZE_MULTIPLE)
