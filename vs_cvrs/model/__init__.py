"""The models: what turns high-rate frames into low-rate frames that hide them, and back."""

from __future__ import annotations

from typing import Any

from vs_cvrs.model.base import CvrsModel, Size, round_to_8bit, round_to_bits
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.light.lite_any import LiteAnyModel
from vs_cvrs.model.light.robust import RobustModel
from vs_cvrs.model.light.tiny import TinyModel
from vs_cvrs.model.paper.rescaler import ConvRescaler, MixRescaler

__all__ = [
    "ARCHITECTURES",
    "ConvRescaler",
    "CvrsModel",
    "LiteAnyModel",
    "LiteModel",
    "MixRescaler",
    "RobustModel",
    "Size",
    "TinyModel",
    "build",
    "round_to_8bit",
    "round_to_bits",
]

ARCHITECTURES: dict[str, type[CvrsModel]] = {
    model.architecture: model
    for model in (ConvRescaler, MixRescaler, LiteModel, TinyModel, LiteAnyModel, RobustModel)
}
"""The classes by the names under which checkpoints know them."""


def build(architecture: str, options: dict[str, Any]) -> CvrsModel:
    """An untrained model.

    Args:
        architecture: a key of `ARCHITECTURES`.
        options: what the class's ``from_options`` takes.

    Raises:
        ValueError: unknown architecture, or an option that does not fit; names it.
    """
    if architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ValueError(f"unknown model architecture {architecture!r}; known are: {known}")
    return ARCHITECTURES[architecture].from_options(options)
