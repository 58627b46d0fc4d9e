"""What Upsample needs to know, as global tags of a Matroska file."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from vs_cvrs.carrier.lossless import DEPTHS
from vs_cvrs.carrier.stamp import Stamp
from vs_cvrs.cli.colours import Colours
from vs_cvrs.cli.running import CliError
from vs_cvrs.cli.streams import check_file
from vs_cvrs.programs.ffmpeg import file_url, find_ffmpeg

__all__ = ["TAGS_VERSION", "Tags", "ffmetadata", "read_tags"]

TAGS_VERSION = 1
_OWN_TIMES = "attached"


@dataclass(frozen=True)
class Tags:
    """The tags of a low-rate file.

    Attributes:
        first: the stamp that its first frame has.
        model: name of the model.
        low_width, low_height, low_length: of the video as it was written.
        pixel_shape: width over height of the high-rate video's pixels.
        bits: of the low-rate frames' samples.
        colours: the high-rate video's.
        timed: whether its frames have times of their own (`vs_cvrs.cli.times`).
    """

    first: Stamp
    model: str
    low_width: int
    low_height: int
    low_length: int
    pixel_shape: Fraction
    bits: int = 8
    colours: Colours = field(default_factory=Colours)
    timed: bool = False

    def as_dict(self) -> dict[str, str]:
        """Tag names and values."""
        first = self.first
        return {
            "CVRS_VERSION": str(TAGS_VERSION),
            "CVRS_RATIO": str(first.ratio),
            "CVRS_RATE": str(first.rate or 0),
            "CVRS_SIZE": f"{first.width}x{first.height}",
            "CVRS_LENGTH": str(first.length),
            "CVRS_GROUP_LENGTH": str(first.group_length),
            "CVRS_INDEX": str(first.index),
            "CVRS_MODEL": self.model,
            "CVRS_CHECKSUM": first.checksum,
            "CVRS_LOW_SIZE": f"{self.low_width}x{self.low_height}",
            "CVRS_LOW_LENGTH": str(self.low_length),
            "CVRS_PIXEL_SHAPE": str(self.pixel_shape),
            **({"CVRS_BITS": str(self.bits)} if self.bits != DEPTHS[0] else {}),
            **self.colours.as_dict(),
            **({"CVRS_TIMES": _OWN_TIMES} if self.timed else {}),
        }

    @classmethod
    def parse(cls, values: dict[str, str]) -> Tags:
        """Raises ValueError or KeyError for tags that `as_dict` cannot have made."""
        if values["CVRS_VERSION"] != str(TAGS_VERSION):
            raise ValueError(f"CVRS_VERSION is {values['CVRS_VERSION']}, not {TAGS_VERSION}")
        width, height = _size(values["CVRS_SIZE"])
        low_width, low_height = _size(values["CVRS_LOW_SIZE"])
        first = Stamp(
            ratio=_fraction(values["CVRS_RATIO"]),
            rate=_fraction(values["CVRS_RATE"]) or None,
            width=width,
            height=height,
            length=int(values["CVRS_LENGTH"]),
            group_length=int(values["CVRS_GROUP_LENGTH"]),
            index=int(values["CVRS_INDEX"]),
            checksum=values["CVRS_CHECKSUM"],
        )
        if Stamp.unpack(first.pack()) != first:
            raise ValueError(f"the values make no sense: {first}")
        shape = _fraction(values["CVRS_PIXEL_SHAPE"])
        low_length = int(values["CVRS_LOW_LENGTH"])
        bits = int(values.get("CVRS_BITS", DEPTHS[0]))
        if bits not in DEPTHS:
            raise ValueError(f"CVRS_BITS is {bits}")
        times = values.get("CVRS_TIMES", "")
        if times not in ("", _OWN_TIMES):
            raise ValueError(f"CVRS_TIMES is {times!r}")
        return cls(
            *(first, values["CVRS_MODEL"], low_width, low_height, low_length, shape),
            bits,
            Colours.parse(values),
            timed=bool(times),
        )


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def _fraction(text: str) -> Fraction:
    if not re.fullmatch(r"\d{1,10}(/\d{1,10})?", text) or re.search(r"/0+$", text):
        raise ValueError(f"{text!r} is not a fraction")
    return Fraction(text)


def ffmetadata(path: Path) -> str:
    """What ffmpeg writes of a file's metadata and chapters.

    Raises:
        CliError: there is no such file, or ffmpeg cannot read it.
        FileNotFoundError: there is no ffmpeg.
    """
    check_file(path)
    done = subprocess.run(
        [find_ffmpeg(), "-v", "error", "-nostdin", "-i", file_url(path), "-f", "ffmetadata", "-"],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise CliError(f"{path} cannot be read: {said[-1] if said else 'ffmpeg says nothing'}")
    return done.stdout.decode(errors="replace")


def read_tags(path: Path) -> Tags | None:
    """The tags of a file, None where it has none.

    Raises:
        CliError: ffmpeg cannot read the file, or its tags are damaged.
        FileNotFoundError: there is no ffmpeg.
    """
    values: dict[str, str] = {}
    for key, value in re.findall(
        r"^(CVRS_\w+)=((?:[^\\\n]|\\(?:.|\n))*)$", ffmetadata(path), re.MULTILINE
    ):
        values[key] = re.sub(r"\\(.|\n)", r"\1", value)
    if not values:
        return None
    try:
        return Tags.parse(values)
    except (ValueError, KeyError) as error:
        raise CliError(f"{path} has damaged CVRS tags: {error}") from error
