"""How a model does on scenes that it is not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vs_cvrs import metrics
from vs_cvrs.evaluation import scoring
from vs_cvrs.evaluation.protocol import Protocol
from vs_cvrs.evaluation.scenes import Frames, Scene, read_frames
from vs_cvrs.model.base import CvrsModel
from vs_cvrs.training.transports import encode_and_decode, from_planes, to_planes

__all__ = ["validate", "validate_through_x264"]

_PRESET = "medium"


def validate(
    model: CvrsModel, scenes: list[Scene], cases: Sequence[tuple[Fraction, Fraction]]
) -> dict[str, float]:
    """Restore folders of PNG frames, in the filters' groups, through real 8-bit frames.

    Args:
        model: in eval mode.
        scenes: the frames.
        cases: time and space factors.

    Returns:
        Means over scenes and cases, in dB: ``clip_psnr``, ``psnr``, ``even``, ``odd``, ``low``; and
        ``ssim``. Of several cases also each one's clip PSNR, as "5/4x2".
    """
    rows = {}
    for ratio, scale in cases:
        protocol = Protocol.of_filters(model, ratio, scale, scenes[0])
        scores = scoring.average(scoring.evaluate(model, scenes, protocol).values())
        rows[f"{ratio}x{scale}"] = scores
    mean = scoring.average(rows.values())
    result = {
        "clip_psnr": mean.clip_psnr_rgb,
        "psnr": mean.psnr_rgb,
        "even": mean.even_psnr_rgb,
        "odd": mean.odd_psnr_rgb if mean.odd_psnr_rgb is not None else math.nan,
        "low": mean.lr_psnr_rgb,
        "ssim": mean.ssim_rgb,
    }
    if len(rows) > 1:
        result |= {case: scores.clip_psnr_rgb for case, scores in rows.items()}
    return result


def validate_through_x264(
    model: CvrsModel, scenes: list[Scene], crfs: Sequence[float]
) -> dict[str, float]:
    """Halve the rate of scenes, send them through x264 (8-bit 4:2:0, medium), and restore them.

    Args:
        model: for time 2x and space 1x, in eval mode.
        scenes: the frames, of widths and heights that 4 divides.
        crfs: x264's.

    Returns:
        Means over scenes and CRFs, in dB: ``clip_psnr`` of all restored frames, ``even`` and
        ``odd`` of shown and removed ones, ``low`` of received low-rate frames against those shown;
        and for each CRF "odd@CRF", "low@CRF", and "plain@CRF", what the receiver makes of frames
        that hide nothing, as removed frames.
    """
    rows: list[dict[str, float]] = []
    for scene in scenes:
        frames = read_frames(scene.frames)
        plain = torch.from_numpy(frames[0::2])
        for crf in crfs:
            model.crf = crf
            received = _through_x264(_sent(model, frames), crf)
            made = _errors(_restored(model, received, len(frames)), frames)
            shown = metrics.mean_squared_error(received, plain)
            without = _errors(_restored(model, _through_x264(plain, crf), len(frames)), frames)
            rows.append(
                {
                    "clip_psnr": _psnr(made),
                    "even": _psnr(made[0::2]),
                    "odd": _psnr(made[1::2]),
                    "low": _psnr(shown),
                    f"odd@{crf:g}": _psnr(made[1::2]),
                    f"low@{crf:g}": _psnr(shown),
                    f"plain@{crf:g}": _psnr(without[1::2]),
                }
            )
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def _sent(model: CvrsModel, frames: Frames) -> Tensor:
    length = 2 * model.group_length
    made = []
    for begin in range(0, len(frames), length):
        group = frames[begin : begin + length]
        count = -(-len(group) // 2)
        made.append(scoring.encode_group(model, group, (count, *frames.shape[2:]), 2 * count))
    return torch.cat(made)


def _through_x264(low: Tensor, crf: float) -> Tensor:
    planes = encode_and_decode(to_planes(low.float() / 255.0), "libx264", crf, _PRESET)
    return (from_planes(planes).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)


def _restored(model: CvrsModel, low: Tensor, count: int) -> Tensor:
    made = []
    for begin in range(0, len(low), model.group_length):
        given = low[begin : begin + model.group_length + model.looks_ahead]
        wanted = min(2 * model.group_length, count - 2 * begin)
        made.append(scoring.decode_group(model, given, (wanted, *low.shape[2:])))
    return torch.cat(made)


def _errors(made: Tensor, frames: Frames) -> npt.NDArray[np.float64]:
    return metrics.mean_squared_error(made, torch.from_numpy(frames))


def _psnr(errors: npt.NDArray[np.float64]) -> float:
    return float(metrics.psnr_from_mse(float(errors.mean())))
