"""How low-rate frames travel: pixel formats and encoders that keep every bit of them.

Low-rate frames are RGB of 8 or 10 bits. They travel as they are, or as BT.709 YUV 4:4:4 in limited
range with two bits more, which carries every RGB colour: all 16,777,216 of 8 bits in 10, and of 10
bits in 12 (the worst error is 0.415 of a level). What RGB takes: docs/carriers.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CODECS", "COLOURS", "DEPTHS", "Carrier", "keyframe_interval"]

CODECS = ("x264", "x265", "ffv1")
"""Lossless encoders."""

COLOURS = ("rgb", "yuv")
"""What low-rate frames are encoded as."""

DEPTHS = (8, 10)
"""Bits of a sample of low-rate frames."""

_KEYFRAME_FRAMES = 24
"""About how many frames lie between two keyframes. Measured: docs/carriers.md."""

_PRESETS = {"x264": "medium", "x265": "veryfast"}

# libx264 has RGB of 8 bits only, and YUV of at most 10.
_FORMATS: dict[tuple[str, str, int], tuple[str, str, str]] = {
    ("x264", "rgb", 8): ("libx264rgb", "bgr24", "RGB24"),
    ("x264", "yuv", 8): ("libx264", "yuv444p10le", "YUV444P10"),
    ("x265", "rgb", 8): ("libx265", "gbrp", "RGB24"),
    ("x265", "rgb", 10): ("libx265", "gbrp10le", "RGB30"),
    ("x265", "yuv", 8): ("libx265", "yuv444p10le", "YUV444P10"),
    ("x265", "yuv", 10): ("libx265", "yuv444p12le", "YUV444P12"),
    ("ffv1", "rgb", 8): ("ffv1", "bgr0", "RGB24"),
    ("ffv1", "rgb", 10): ("ffv1", "gbrp10le", "RGB30"),
    ("ffv1", "yuv", 8): ("ffv1", "yuv444p10le", "YUV444P10"),
    ("ffv1", "yuv", 10): ("ffv1", "yuv444p12le", "YUV444P12"),
}


@dataclass(frozen=True)
class Carrier:
    """A way for low-rate frames from sender to receiver that loses nothing.

    Attributes:
        codec: one of `CODECS`.
        colours: one of `COLOURS`.
        bits: of the low-rate frames' samples, one of `DEPTHS`.

    Raises:
        ValueError: the encoder does not take such frames.
    """

    codec: str
    colours: str = "rgb"
    bits: int = 8

    def __post_init__(self) -> None:
        if (self.codec, self.colours, self.bits) not in _FORMATS:
            takes = [c for c, colours, b in _FORMATS if (colours, b) == (self.colours, self.bits)]
            raise ValueError(
                f"{self.codec} does not carry {self.bits}-bit frames as {self.colours} without "
                f"loss; {' and '.join(takes) or 'no encoder'} can"
            )

    @property
    def encoder(self) -> str:
        """The encoder, by ffmpeg's name."""
        return self._format[0]

    @property
    def pixel_format(self) -> str:
        """The pixel format that the encoder is given, by ffmpeg's name."""
        return self._format[1]

    @property
    def clip_format(self) -> str:
        """VapourSynth's name of the format that frames are converted to, without loss."""
        return self._format[2]

    def options(
        self, keyframes: int, preset: str | None = None, parameters: Sequence[str] = ()
    ) -> list[str]:
        """The video options of ffmpeg, without the colour description.

        Args:
            keyframes: frames from one keyframe to the next; there are no others.
            preset: of x264 and x265; None: medium for x264, veryfast for x265.
            parameters: more of them for x264 and x265, in their own words.
        """
        words = ["-c:v", self.encoder]
        interval = ["-g", str(keyframes), "-keyint_min", str(keyframes)]
        speed = ["-preset", preset or _PRESETS.get(self.codec, "")]
        if self.codec == "x264":
            # Scene cuts would make keyframes inside groups, where a seek is of no use.
            words += ["-qp", "0", *interval, "-sc_threshold", "0", *speed]
            if parameters:
                words += ["-x264-params", ":".join(parameters)]
        elif self.codec == "x265":
            own = ["lossless=1", "log-level=error", "scenecut=0", "open-gop=0"]
            words += ["-x265-params", ":".join([*own, *parameters]), *interval, *speed]
        else:
            # The range coder, whose larger context model makes up for what it costs in RGB.
            words += ["-level", "3", "-coder", "range_tab", "-context", "1", "-g", str(keyframes)]
        return [*words, "-pix_fmt", self.pixel_format]

    @property
    def _format(self) -> tuple[str, str, str]:
        return _FORMATS[self.codec, self.colours, self.bits]


def keyframe_interval(group_length: int) -> int:
    """Frames between two keyframes: the multiple of the group that is nearest to a second."""
    return group_length * max(1, round(_KEYFRAME_FRAMES / group_length))
