"""What a video file says of its colours and of the display that it was made on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vs_cvrs.programs.ffmpeg import has_option

__all__ = ["BT709", "RGB", "UNSTATED", "Colours"]

RGB, BT709, UNSTATED = 0, 1, 2
"""H.273's numbers of matrices; 2 is unstated for primaries and transfer too."""

_KEPT_MATRICES = {1, 4, 5, 6, 7, 9}
"""Of YUV, without those that need to know the transfer (constant luminance, ICtCp)."""

_TRANSFERS = {16: "PQ", 18: "HLG"}
_MASTERING = r"G\(\d+,\d+\)B\(\d+,\d+\)R\(\d+,\d+\)WP\(\d+,\d+\)L\(\d+,\d+\)"
_LIGHT = r"\d+,\d+"


@dataclass(frozen=True)
class Colours:
    """The colours of a video.

    Attributes:
        matrix, primaries, transfer: H.273 numbers; 2 is unstated.
        mastering: the mastering display, as x265 writes it (SMPTE ST 2086 in units of 1/50000 and
            1/10000 cd/m2): "G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min)"; empty where it is not stated.
        light: maximum and mean content light level in cd/m2, "1000,400"; empty likewise.
    """

    matrix: int = UNSTATED
    primaries: int = UNSTATED
    transfer: int = UNSTATED
    mastering: str = ""
    light: str = ""

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> Self:
        """What BestSource's frame properties say."""
        light = [int(properties.get(f"ContentLightLevel{n}", 0)) for n in ("Max", "Average")]
        return cls(
            matrix=int(properties.get("_Matrix", UNSTATED)),
            primaries=int(properties.get("_Primaries", UNSTATED)),
            transfer=int(properties.get("_Transfer", UNSTATED)),
            mastering=_mastering(properties),
            light=",".join(map(str, light)) if any(light) else "",
        )

    @property
    def hdr(self) -> str:
        """PQ or HLG; empty for other transfers."""
        return _TRANSFERS.get(self.transfer, "")

    @property
    def restored_matrix(self) -> int:
        """The matrix of the restored file: the source's, or BT.709 where that cannot be."""
        return self.matrix if self.matrix in _KEPT_MATRICES else BT709

    def words(self, matrix: int) -> list[str]:
        """Options of ffmpeg for frames of a matrix, on either side of ``-i``."""
        words = ["-colorspace", str(matrix), "-color_range", "pc" if matrix == RGB else "tv"]
        if self.primaries != UNSTATED:
            words += ["-color_primaries", str(self.primaries)]
        if self.transfer != UNSTATED:
            words += ["-color_trc", str(self.transfer)]
        return words

    def parameters(self, codec: str) -> list[str]:
        """Parameters by which x264 or x265 writes the display and the light into its stream."""
        names = {"x264": ("mastering-display", "cll"), "x265": ("master-display", "max-cll")}
        display, light = names.get(codec, ("", ""))
        words = [f"{display}={self.mastering}"] if display and self.mastering else []
        return words + ([f"{light}={self.light}"] if light and self.light else [])

    def input_words(self) -> list[str]:
        """Options of ffmpeg for an input whose container is to state the display and the light."""
        if not (self.mastering or self.light) or not has_option("mastering_display"):
            return []
        words = ["-mastering_display:v:0", self.mastering] if self.mastering else []
        return words + (["-content_light:v:0", self.light] if self.light else [])

    def as_dict(self) -> dict[str, str]:
        """Tag names and values; without those that say nothing."""
        numbers = (self.matrix, self.primaries, self.transfer)
        return {
            **({"CVRS_COLOURS": ",".join(map(str, numbers))} if set(numbers) != {UNSTATED} else {}),
            **({"CVRS_MASTERING": self.mastering} if self.mastering else {}),
            **({"CVRS_LIGHT": self.light} if self.light else {}),
        }

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Self:
        """Raises ValueError for tags that `as_dict` cannot have made."""
        numbers = values.get("CVRS_COLOURS", "2,2,2")
        mastering, light = values.get("CVRS_MASTERING", ""), values.get("CVRS_LIGHT", "")
        for name, value, pattern in (
            ("COLOURS", numbers, r"\d{1,3},\d{1,3},\d{1,3}"),
            ("MASTERING", mastering, f"({_MASTERING})?"),
            ("LIGHT", light, f"({_LIGHT})?"),
        ):
            if not re.fullmatch(pattern, value):
                raise ValueError(f"CVRS_{name} is {value!r}")
        matrix, primaries, transfer = map(int, numbers.split(","))
        return cls(matrix, primaries, transfer, mastering, light)


def _mastering(properties: Mapping[str, Any]) -> str:
    """The mastering display; empty where a part of it is not stated."""
    try:
        x, y = (
            [round(50000 * value) for value in properties[f"MasteringDisplayPrimaries{axis}"]]
            for axis in "XY"
        )
        white = [round(50000 * properties[f"MasteringDisplayWhitePoint{axis}"]) for axis in "XY"]
        light = [round(10000 * properties[f"MasteringDisplay{n}Luminance"]) for n in ("Max", "Min")]
    except KeyError:
        return ""
    red, green, blue = (f"({a},{b})" for a, b in zip(x, y, strict=True))
    return f"G{green}B{blue}R{red}WP({white[0]},{white[1]})L({light[0]},{light[1]})"
