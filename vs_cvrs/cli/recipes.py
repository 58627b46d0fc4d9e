"""Which frames a job encodes, in words that any process can follow."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vs_cvrs.cli.clips import Video, core, open_video, source_form, to_low_rate, to_rgb
from vs_cvrs.cli.colours import BT709, RGB
from vs_cvrs.cli.running import CliError

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """From a video file to the frames that are encoded. It holds nothing but values.

    Attributes:
        source: the video file.
        constant_rate: as `open_video` takes it.
        part: the file's frames from the first to before the second; None: all.
        rate: what the file's frames are said to have; None: as the file says.
        any_times: as `open_video` takes it.
        repeated: the source's frames that cannot be decoded; others are shown in their place.
        progressive: take frames as such, whatever the file says of their fields.
        filter: Downsample or Upsample.
        arguments: of the filter, without the clip.
        format: VapourSynth's number of the format that is encoded.
        matrix: of that format: H.273's number.
    """

    source: Path
    filter: str
    arguments: dict[str, Any]
    format: int
    matrix: int = BT709
    constant_rate: Fraction | None = None
    part: tuple[int, int] | None = None
    rate: Fraction | None = None
    any_times: bool = False
    repeated: tuple[int, ...] = ()
    progressive: bool = False

    def clip(self, video: Video | None = None, index: Path | None = None) -> Any:
        """The frames: RGB, or YUV of limited range, with the filter's properties.

        Args:
            video: the source, where it is open already.
            index: of the source, where it is not, as `open_video` takes it.

        Raises:
            CliError: the source cannot be read, or the plugin is not there.
            vapoursynth.Error: the filter does not take the arguments.
        """
        if not hasattr(core, "cvrs"):
            raise CliError("VapourSynth does not find the cvrs plugin; vs-cvrs doctor says more")
        video = video or open_video(
            self.source, self.constant_rate, any_times=self.any_times, index=index
        )
        clip = _without(video.clip, self.repeated)
        if self.progressive:
            clip = core.std.SetFieldBased(clip, 0)
        clip = self._rgb(clip)
        if self.part is not None:
            clip = clip[slice(*self.part)]
        if self.rate is not None:
            rate = self.rate
            clip = core.std.AssumeFPS(clip, fpsnum=rate.numerator, fpsden=rate.denominator)
        made = getattr(core.cvrs, self.filter)(clip, **self.arguments)
        if self.matrix != RGB:
            return core.resize.Bicubic(made, format=self.format, matrix=self.matrix, range=0)
        return made

    def _rgb(self, clip: Any) -> Any:
        """The file's frames as the filter takes them."""
        if self.filter == "Upsample":
            return to_low_rate(clip)
        return to_rgb(clip, source_form(clip))[0]


def _without(clip: Any, numbers: tuple[int, ...]) -> Any:
    """The clip with the frame before each of these, or else the one after it, in its place."""
    if not numbers:
        return clip
    bad = set(numbers)
    shown = []
    for n in numbers:
        before = next((k for k in range(n, -1, -1) if k not in bad), None)
        after = next((k for k in range(n, clip.num_frames) if k not in bad), n)
        shown.append(after if before is None else before)
    return core.std.FreezeFrames(clip, first=numbers, last=numbers, replacement=shown)
