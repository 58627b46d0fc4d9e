"""How close restored frames are to the originals: PSNR and SSIM of 8-bit frames.

Frames are uint8 arrays or tensors of shape (frames, 3, height, width), full-range RGB. Results are
float64 NumPy arrays with one value per frame, whose means are the figures that papers print. The
work is done in float64, a frame at a time, on the device that the tensors are on.

The definitions are those of Zhang & Chen (CVPR 2025, section 4): PSNR per frame, then averaged;
SSIM with an 11x11 Gaussian window of sigma 1.5; Y as BT.601 in studio range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = [
    "PSNR_CAP",
    "SSIM_WINDOW",
    "Frames",
    "Scores",
    "clip_psnr",
    "mean_squared_error",
    "psnr",
    "psnr_from_mse",
    "rgb_to_y",
    "ssim",
]

Frames = npt.NDArray[np.uint8] | Tensor
"""uint8, (frames, 3, height, width)."""

Scores = npt.NDArray[np.float64]
"""One value per frame."""

PSNR_CAP = 100.0
"""dB. No PSNR is given as more than this: identical frames would be infinite, and one such frame
would make every mean infinite. 100 dB is a mean squared error of 6.5e-6: one level in one sample of
150,000."""

SSIM_WINDOW = 11
"""Width and height of the Gaussian window, in pixels; smaller frames have no SSIM."""

_PEAK = 255.0
_SSIM_SIGMA = 1.5
_SSIM_C1 = (0.01 * _PEAK) ** 2
_SSIM_C2 = (0.03 * _PEAK) ** 2


def rgb_to_y(frames: Frames) -> Tensor:
    """Luma of 8-bit RGB frames: 16 + (65.481 R + 128.553 G + 24.966 B) / 255 (BT.601).

    Returns:
        float64, (frames, 1, height, width), 16 (black) to 235 (white). It is not rounded: the noise
        of rounding two lumas would keep their PSNR below 56 dB.

    Raises:
        ValueError: ``frames`` is not uint8 of shape (frames, 3, height, width).
    """
    rgb = _as_frames(frames).to(torch.float64)
    weights = rgb.new_tensor([65.481, 128.553, 24.966]) / 255.0
    return 16.0 + (rgb * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def mean_squared_error(restored: Frames, reference: Frames, *, luma: bool = False) -> Scores:
    """Mean squared error of each frame over its channels and pixels, in squared 8-bit levels.

    Args:
        restored: frames to judge.
        reference: what they should be, of the same shape.
        luma: compare Y (`rgb_to_y`) and not R, G and B.

    Raises:
        ValueError: the shapes differ, are not (frames, 3, height, width), or are not uint8.
    """
    pairs = _pairs(restored, reference, luma)
    return np.array([float((x - y).square().mean()) for x, y in pairs], dtype=np.float64)


def psnr_from_mse(mse: npt.ArrayLike) -> Scores:
    """PSNR in dB, 10 log10(255^2 / mse), at most `PSNR_CAP`; of the shape of ``mse``."""
    least = _PEAK**2 / 10 ** (PSNR_CAP / 10)
    error = np.maximum(np.asarray(mse, dtype=np.float64), least)
    return np.asarray(10 * np.log10(_PEAK**2 / error), dtype=np.float64)


def psnr(restored: Frames, reference: Frames, *, luma: bool = False) -> Scores:
    """PSNR of each frame in dB, at most `PSNR_CAP`; the peak is 255 for Y too.

    Arguments and errors are those of `mean_squared_error`.
    """
    return psnr_from_mse(mean_squared_error(restored, reference, luma=luma))


def clip_psnr(restored: Frames, reference: Frames, *, luma: bool = False) -> float:
    """PSNR in dB of the mean squared error of all frames together, at most `PSNR_CAP`.

    Unlike the mean of per-frame PSNRs it cannot be bought by a few perfect frames.

    Arguments and errors are those of `mean_squared_error`; no frames at all are an error too.
    """
    mse = mean_squared_error(restored, reference, luma=luma)
    if mse.size == 0:
        raise ValueError("clip_psnr: needs at least one frame, got none")
    return float(psnr_from_mse(mse.mean()))


def ssim(restored: Frames, reference: Frames, *, luma: bool = False) -> Scores:
    """Structural similarity of each frame, -1 to 1, the mean over its channels.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004:
    an 11x11 Gaussian of sigma 1.5, K1 = 0.01, K2 = 0.03, peak 255, averaged over the pixels whose
    window lies inside the frame. It equals scikit-image's ``structural_similarity`` with
    ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``.

    Raises:
        ValueError: as `mean_squared_error`, or the frames are smaller than 11x11.
    """
    height, width = restored.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise ValueError(
            f"ssim: frames must be at least {SSIM_WINDOW}x{SSIM_WINDOW}, got {width}x{height}"
        )
    pairs = _pairs(restored, reference, luma)
    return np.array([_frame_ssim(x, y) for x, y in pairs], dtype=np.float64)


def _as_frames(frames: Frames) -> Tensor:
    tensor = frames if isinstance(frames, Tensor) else torch.from_numpy(frames)
    if tensor.ndim != 4 or tensor.shape[1] != 3 or tensor.dtype != torch.uint8:
        raise ValueError(
            "metrics: frames must be uint8 of shape (frames, 3, height, width), "
            f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    return tensor


def _pairs(restored: Frames, reference: Frames, luma: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Frame by frame, as float64 of shape (channels, height, width)."""
    a, b = _as_frames(restored), _as_frames(reference)
    if a.shape != b.shape:
        raise ValueError(
            "metrics: restored and reference frames must have the same shape, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    for x, y in zip(a, b, strict=True):
        if luma:
            yield rgb_to_y(x[None])[0], rgb_to_y(y[None])[0]
        else:
            yield x.to(torch.float64), y.to(torch.float64)


def _frame_ssim(x: Tensor, y: Tensor) -> float:
    mean_x, mean_y = _gaussian(x), _gaussian(y)
    squares = mean_x.square() + mean_y.square()
    product = mean_x * mean_y
    variances = _gaussian(x.square() + y.square()) - squares
    covariance = _gaussian(x * y) - product
    numerator = (2 * product + _SSIM_C1) * (2 * covariance + _SSIM_C2)
    denominator = (squares + _SSIM_C1) * (variances + _SSIM_C2)
    return float((numerator / denominator).mean())


def _gaussian(x: Tensor) -> Tensor:
    """Windowed means of (channels, height, width) where the whole window lies inside."""
    radius = SSIM_WINDOW // 2
    taps = [math.exp(-0.5 * (i / _SSIM_SIGMA) ** 2) for i in range(-radius, radius + 1)]
    total = sum(taps)
    # A sum of shifted copies: float64 convolutions are slow on CPUs.
    for axis in (-1, -2):
        size = x.shape[axis] - SSIM_WINDOW + 1
        out = torch.zeros_like(x.narrow(axis, 0, size))
        for i, tap in enumerate(taps):
            out.add_(x.narrow(axis, i, size), alpha=tap / total)
        x = out
    return x
