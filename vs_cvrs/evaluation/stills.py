"""Still pictures taken down in size and restored, as papers on image rescaling measure it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from vs_cvrs import metrics
from vs_cvrs.evaluation import EvaluationError
from vs_cvrs.evaluation.scenes import Frames, natural_key, read_frames
from vs_cvrs.evaluation.scoring import decode_group, encode_group, low_rate_reference
from vs_cvrs.model.base import CvrsModel
from vs_cvrs.timeline import SIZE_MULTIPLE

__all__ = ["IRN", "Published", "StillScores", "average", "check", "evaluate", "find_sets"]


@dataclass(frozen=True)
class Published:
    """Y PSNR in dB that a paper gives for a set."""

    bicubic: float
    irn: float


IRN: dict[tuple[Fraction, str], Published] = {
    (Fraction(2), "Set5"): Published(33.66, 43.99),
    (Fraction(2), "Set14"): Published(30.24, 40.79),
    (Fraction(2), "BSD100"): Published(29.56, 41.32),
    (Fraction(2), "Urban100"): Published(26.88, 39.92),
    (Fraction(4), "Set5"): Published(28.42, 36.19),
    (Fraction(4), "Set14"): Published(26.00, 32.67),
    (Fraction(4), "BSD100"): Published(25.96, 31.64),
    (Fraction(4), "Urban100"): Published(23.14, 31.41),
}
"""Xiao et al., "Invertible Image Rescaling", ECCV 2020, table 1, by space factor and set."""


@dataclass(frozen=True)
class StillScores:
    """Of a picture, or means over pictures; PSNR in dB, see `vs_cvrs.metrics`.

    Attributes:
        psnr_y, psnr_rgb: the restored picture without a border as wide as the factor.
        low_psnr_rgb: the low-rate picture against antialiased bicubic reduction.
        bicubic_psnr_y: as ``psnr_y``, of antialiased bicubic reduction enlarged by bicubic (a =
            -0.5 both ways, as MATLAB's ``imresize``).
    """

    psnr_y: float
    psnr_rgb: float
    low_psnr_rgb: float
    bicubic_psnr_y: float


def find_sets(root: Path) -> dict[str, list[Path]]:
    """PNG files by the folder that holds them, at or under ``root``.

    Raises:
        EvaluationError: ``root`` is no folder or there is no PNG file.
    """
    if not root.is_dir():
        raise EvaluationError(f"--datapath must be a folder of PNG pictures, got {root}")
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.png"), key=lambda path: natural_key(path.as_posix())):
        found.setdefault(path.resolve().parent.name, []).append(path)
    if not found:
        raise EvaluationError(f"no PNG files in or under {root}")
    return found


def check(pictures: Iterable[Path], scales: Sequence[Fraction]) -> None:
    """Refuse pictures that are too small for a factor before any time is spent.

    Raises:
        EvaluationError: a picture has no whole multiple of the factor times 4, or is unreadable.
    """
    for path in pictures:
        height, width = read_frames([path]).shape[-2:]
        for scale in scales:
            if min(_whole(height, scale), _whole(width, scale)) == 0:
                raise EvaluationError(
                    f"{path} is too small for space factor {scale}, needs at least "
                    f"{_unit(scale)}x{_unit(scale)}, got {width}x{height}"
                )


@torch.inference_mode()
def evaluate(model: CvrsModel, path: Path, scale: Fraction, refine: int = 0) -> StillScores:
    """Restore one picture, cropped so that the factor is exact.

    Args:
        model: on any device, in eval mode.
        path: a PNG file.
        scale: high size over low size.
        refine: see `encode_group`.

    Raises:
        EvaluationError: as `read_frames` and `encode_group`.
    """
    whole = read_frames([path])
    height, width = (_whole(side, scale) for side in whole.shape[-2:])
    high = np.ascontiguousarray(whole[..., :height, :width])
    low_size = int(height / scale), int(width / scale)
    low = encode_group(model, high, (1, *low_size), refine=refine)
    restored = decode_group(model, low, (1, height, width)).cpu().numpy()
    reference = low_rate_reference(high, low_size)
    border = int(np.ceil(float(scale))) if scale > 1 else 0

    def inner(x: Frames) -> Frames:
        return x[..., border : height - border, border : width - border]

    def score(x: Frames, *, luma: bool) -> float:
        return float(metrics.psnr(inner(x), inner(high), luma=luma)[0])

    return StillScores(
        psnr_y=score(restored, luma=True),
        psnr_rgb=score(restored, luma=False),
        low_psnr_rgb=float(metrics.psnr(low.cpu(), reference)[0]),
        bicubic_psnr_y=score(_enlarged(reference, (height, width)), luma=True),
    )


def average(scores: Sequence[StillScores]) -> StillScores:
    """Means over pictures."""
    return StillScores(
        **{
            field.name: float(np.mean([getattr(row, field.name) for row in scores]))
            for field in fields(StillScores)
        }
    )


def _enlarged(low: torch.Tensor, size: tuple[int, int]) -> Frames:
    # Antialiased enlarging has no wider kernel than plain enlarging, but its a is -0.5.
    values = functional.interpolate(
        low.to(torch.float32), size=size, mode="bicubic", antialias=True
    )
    made: Frames = values.clamp(0.0, 255.0).round().to(torch.uint8).numpy()
    return made


def _unit(scale: Fraction) -> int:
    """The least whole number of pixels that the factor takes to a multiple of `SIZE_MULTIPLE`."""
    return scale.numerator * SIZE_MULTIPLE


def _whole(side: int, scale: Fraction) -> int:
    return side // _unit(scale) * _unit(scale)
