"""A model whose results are known, and that fails on demand. Importing this registers it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vs_cvrs.model import ARCHITECTURES
from vs_cvrs.model.base import CvrsModel, Size


class NearestModel(CvrsModel):
    """Takes the nearest frame and pixel; its low-rate frames are the negative of the picture.

    Class attributes:
        before_stage: called with a stage's name before it runs; may raise.
    """

    architecture: ClassVar[str] = "nearest"
    before_stage: ClassVar[Callable[[str], None]] = staticmethod(lambda stage: None)
    clamp_output: ClassVar[bool] = False
    group_length = 4

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.options = options
        self.identity = nn.Conv3d(1, 1, 1, bias=False)
        nn.init.ones_(self.identity.weight)
        for name in ("time_factor", "space_factor"):
            if name in options:
                setattr(self, name, Fraction(options[name]))
        self.inside = threading.Lock()

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        return cls(options)

    def downsample(self, high: Tensor, size: Size) -> Tensor:
        return self._resize("downsample", high, size)

    def embed(self, latent: Tensor) -> Tensor:
        type(self).before_stage("embed")
        return 1.0 - latent

    def extract(self, low: Tensor) -> Tensor:
        type(self).before_stage("extract")
        return 1.0 - low

    def upsample(self, latent: Tensor, size: Size) -> Tensor:
        return self._resize("upsample", latent, size)

    def _resize(self, stage: str, x: Tensor, size: Size) -> Tensor:
        if not self.inside.acquire(blocking=False):
            raise AssertionError("two groups at the same time")
        try:
            type(self).before_stage(stage)
            return torch.cat([self._nearest(x[:, c : c + 1], size) for c in range(3)], 1)
        finally:
            self.inside.release()

    def _nearest(self, x: Tensor, size: Size) -> Tensor:
        out: Tensor = self.identity(F.interpolate(x, size=size, mode="nearest-exact"))
        return out


ARCHITECTURES[NearestModel.architecture] = NearestModel
