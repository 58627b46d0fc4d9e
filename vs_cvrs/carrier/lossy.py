"""Low-rate frames through ordinary encoders with loss, for models that outlive it: 8-bit 4:2:0."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LOSSY_CODECS", "LossyCarrier"]

LOSSY_CODECS = ("x264", "x265", "av1")
"""Encoders; av1 is SVT-AV1."""

_ENCODERS = {"x264": "libx264", "x265": "libx265", "av1": "libsvtav1"}
_PRESETS = {"x264": "medium", "x265": "medium", "av1": "6"}
_CRFS = {"x264": 18.0, "x265": 18.0, "av1": 30.0}
_MOST = {"x264": 51.0, "x265": 51.0, "av1": 63.0}

# SVT-AV1's CRFs 20 and 46 leave about as much as x264's 12 and 28.
_AV1_SLOPE = (28.0 - 12.0) / (46.0 - 20.0)


@dataclass(frozen=True)
class LossyCarrier:
    """A way for low-rate frames that costs some of them.

    Attributes:
        codec: one of `LOSSY_CODECS`.
        crf: the encoder's constant rate factor; None: 18, of av1 30.

    Raises:
        ValueError: there is no such encoder, or it has no such factor.
    """

    codec: str
    crf: float | None = None

    bits = 8
    clip_format = "YUV420P8"

    def __post_init__(self) -> None:
        if self.codec not in _ENCODERS:
            raise ValueError(f"encoders with loss are {', '.join(LOSSY_CODECS)}, got {self.codec}")
        if not 0.0 <= self.factor <= _MOST[self.codec]:
            raise ValueError(
                f"{self.codec} has constant rate factors of 0 to {_MOST[self.codec]:g}, "
                f"got {self.factor:g}"
            )

    @property
    def factor(self) -> float:
        """The encoder's constant rate factor."""
        return _CRFS[self.codec] if self.crf is None else self.crf

    @property
    def strength(self) -> float:
        """The constant rate factor of x264 that leaves about as much."""
        if self.codec == "av1":
            return min(max(12.0 + _AV1_SLOPE * (self.factor - 20.0), 0.0), 51.0)
        return self.factor

    def options(self, keyframes: int, preset: str | None = None) -> list[str]:
        """The video options of ffmpeg, without the colour description.

        Args:
            keyframes: frames from one keyframe to the next, at most.
            preset: of x264 and x265.
        """
        words = ["-c:v", _ENCODERS[self.codec], "-preset", preset or _PRESETS[self.codec]]
        # SVT-AV1 takes whole numbers.
        factor = f"{self.factor:.0f}" if self.codec == "av1" else f"{self.factor:g}"
        words += ["-crf", factor, "-g", str(keyframes)]
        if self.codec == "x265":
            words += ["-x265-params", "log-level=error"]
        return [*words, "-pix_fmt", "yuv420p"]
