"""What every model is to the rest of the project, whatever its layers are."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from vs_cvrs.model.interpolation import interpolated
from vs_cvrs.timeline import choose_group_length

__all__ = ["CvrsModel", "Size", "Stage", "clamped", "round_to_8bit", "round_to_bits", "size_of"]

Size = tuple[int, int, int]
"""(frames, height, width) of a group."""

Stage = Callable[[Tensor, Size], Tensor]
"""Frames of a group to frames of another size."""


def round_to_8bit(x: Tensor) -> Tensor:
    """Clamp to 0..1 and round to the nearest of the 256 levels that a low-rate frame can store."""
    return round_to_bits(x, 8)


def round_to_bits(x: Tensor, bits: int) -> Tensor:
    """Clamp to 0..1 and round to the nearest of the 2^bits levels from 0 to 1."""
    top = 2.0**bits - 1.0
    return torch.round(x.clamp(0.0, 1.0) * top) / top


class CvrsModel(nn.Module, abc.ABC):
    """A CVRS model: down network, invertible steganography (IMSM) and up network.

    Tensors are (batch, 3, frames, height, width), RGB, float, in 0..1. A subclass gives the four
    stages; `encode` and `decode` join them (Zhang & Chen, CVPR 2025, figure 2):

        downsample -> embed -> (8-bit frames) -> extract -> upsample

    Class attributes:
        architecture: name under which checkpoints know the class.
        clamp_latent: clamp what `downsample` gives to 0..1 before `embed`.
        clamp_output: clamp what `upsample` gives to 0..1.
        looks_ahead: low-rate frames of the next group that help to restore one; `decode` takes them
            behind the group's own, where they are there, and makes no frames of them.
        counts_frames: which frames low-rate frames show follows from how many there are of either
            rate, so that a group whose last frames are missing must be filled up.
        interpolates: `between` is made by networks of its own, not by motion alone.
        refines: its low-rate frames can be `vs_cvrs.model.refine.refined` in bounded memory.
        outlives_loss: what it hides is meant to be encoded with loss, and `crf` is what the sender
            is told of that.
        takes_bfloat16: `convolution_dtype` bfloat16, on one side or both, costs restored frames
            less than 0.15 dB.
        takes_tf32: beside networks of reduced precision, TF32 in what stays float32 (ten bits of
            each factor, sums in float32) costs restored frames less than 0.02 dB.

    Attributes:
        options: what `from_options` needs to build the same model again; JSON values only.
        time_factor: the one high/low rate ratio the model was made for; None: any ratio >= 1.
        space_factor: the one high/low size ratio the model was made for; None: any ratio >= 1.
        group_length: low-rate frames in a group that the model was trained with.
        crf: constant rate factor of x264 that does as much as will be done to low-rate frames.
        convolution_dtype: what `encode` and `decode` let the down and up networks compute in; None:
            the parameters' own. The IMSM always stays in that: its inverse must undo it exactly.
    """

    architecture: ClassVar[str]
    clamp_latent: ClassVar[bool] = True
    clamp_output: ClassVar[bool] = True
    takes_bfloat16: ClassVar[bool] = False
    takes_tf32: ClassVar[bool] = False
    looks_ahead: ClassVar[int] = 0
    counts_frames: ClassVar[bool] = False
    interpolates: ClassVar[bool] = False
    refines: ClassVar[bool] = False
    outlives_loss: ClassVar[bool] = False

    options: dict[str, Any]
    time_factor: Fraction | None = None
    space_factor: Fraction | None = None
    group_length: int = 4
    crf: float | None = None
    convolution_dtype: torch.dtype | None = None

    @classmethod
    @abc.abstractmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        """Build the model, untrained. Raises ValueError naming the option that does not fit."""

    @abc.abstractmethod
    def downsample(self, high: Tensor, size: Size) -> Tensor:
        """High-rate frames to a latent of ``size``, not clamped."""

    @abc.abstractmethod
    def embed(self, latent: Tensor) -> Tensor:
        """IMSM forward: latent to low-rate frames of the same size, not clamped."""

    @abc.abstractmethod
    def extract(self, low: Tensor) -> Tensor:
        """IMSM inverse: low-rate frames to the latent, not clamped."""

    @abc.abstractmethod
    def upsample(self, latent: Tensor, size: Size) -> Tensor:
        """Latent to high-rate frames of ``size``, not clamped."""

    def pads(self, high: tuple[int, int], low: tuple[int, int]) -> bool:
        """Whether pictures of size ``high`` (height, width) become ``low`` by repeated edge pixels.

        Otherwise they are resized to it.
        """
        return False

    def suited_group_length(
        self, ratio: Fraction, high: tuple[int, int], low: tuple[int, int]
    ) -> int:
        """Low-rate frames in a group where nobody asks for other groups.

        Args:
            ratio: high rate over low rate.
            high: height and width of high-rate frames.
            low: of low-rate ones.
        """
        return choose_group_length(ratio, self.group_length)

    def uses_imsm(self, high: Size, low: Size) -> bool:
        """Whether groups of size ``high`` that become ``low`` go through the IMSM."""
        return True

    def limits(self, low: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """How far down and up each sample of low-rate frames can go before it says something else.

        Args:
            low: low-rate frames, rounded to levels.
            size: of the frames that they restore.
        """
        return torch.zeros_like(low), torch.ones_like(low)

    def arrived(self, low: Tensor, restored: Tensor) -> bool | None:
        """Whether what low-rate frames hide is still in them, by what was restored of them.

        Args:
            low: as they were received, (1, 3, t, h, w) in 0..1.
            restored: the frames made of them, (1, 3, T, H, W).

        Returns:
            None where that does not show.
        """
        return None

    def imsm_parameters(self) -> list[nn.Parameter]:
        """Parameters of the invertible part, which training can take apart from the rest."""
        return []

    def space_parameters(self) -> list[nn.Parameter]:
        """Parameters of the path between sizes where a model has one of its own, likewise."""
        return []

    def shared_parameters(self) -> list[nn.Parameter]:
        """Those of what only groups take that lose both frames and size, likewise."""
        return []

    def receiver_parameters(self) -> list[nn.Parameter]:
        """Those that change what is restored and not what is sent, where a model has such."""
        return []

    def encode(self, high: Tensor, size: Size) -> Tensor:
        """High-rate frames to low-rate frames of ``size`` in 0..1, not yet rounded to 8 bits."""
        return self._encode(high, size, self.downsample, self.uses_imsm(size_of(high), size))

    def decode(self, low: Tensor, size: Size) -> Tensor:
        """Low-rate frames to restored frames of ``size``; in 0..1 where ``clamp_output`` is set."""
        return self._decode(low, size, self.upsample, self.uses_imsm(size, size_of(low)))

    def _encode(self, high: Tensor, size: Size, down: Stage, imsm: bool) -> Tensor:
        """`encode` by a stage like `downsample`, and the IMSM or not."""
        with self._reduced_precision(high):
            latent = down(high, size).to(high.dtype)
        if self.clamp_latent:
            latent = clamped(latent, high)
        if imsm:
            latent = self.embed(latent)
        return clamped(latent, high)

    def _decode(self, low: Tensor, size: Size, up: Stage, imsm: bool) -> Tensor:
        """`decode` by the IMSM or not, and a stage like `upsample`."""
        latent = clamped(self.extract(low) if imsm else low, low)
        with self._reduced_precision(low):
            high = up(latent, size).to(low.dtype)
        return clamped(high, low) if self.clamp_output else high

    def interpolate(self, low: Tensor, size: Size, behind: int = 0) -> Tensor:
        """Low-rate frames that hide nothing to frames of ``size`` in 0..1, as `decode` does.

        Low-rate frames are shown as they are; the last ``behind`` of them lie behind all frames
        that are made.
        """
        with self._reduced_precision(low):
            high = self.between(low, size, behind).to(low.dtype)
        return clamped(high, low)

    def between(self, low: Tensor, size: Size, behind: int = 0) -> Tensor:
        """What `interpolate` gives, not clamped."""
        return interpolated(low, size, behind)

    def _reduced_precision(self, x: Tensor) -> contextlib.AbstractContextManager[object]:
        if self.convolution_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(x.device.type, self.convolution_dtype)


def size_of(x: Tensor) -> Size:
    """The size of a group (batch, 3, frames, height, width)."""
    return x.shape[2], x.shape[3], x.shape[4]


def clamped(x: Tensor, given: Tensor) -> Tensor:
    """A stage's output in 0..1: in place, unless gradients are wanted or it is what was given."""
    shared = x.untyped_storage().data_ptr() == given.untyped_storage().data_ptr()
    return x.clamp(0.0, 1.0) if shared or torch.is_grad_enabled() else x.clamp_(0.0, 1.0)
