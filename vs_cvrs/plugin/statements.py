"""What a clip made by Downsample states of itself: by frame properties, or by stamps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from vs_cvrs.carrier.levels import find_stamp
from vs_cvrs.carrier.lossless import DEPTHS
from vs_cvrs.plugin.clip import FORMATS, Clip, Value, frame_type
from vs_cvrs.texts import shown

__all__ = [
    "PROPERTIES_VERSION",
    "Stated",
]

PROPERTIES_VERSION = 1
"""CVRSVersion: the meaning of the frame properties that Downsample writes."""


@dataclass(frozen=True)
class Stated:
    """What the frame properties or the stamps of a clip made by Downsample state.

    Rate None: unknown. ``bits`` are those of low-rate samples. ``where`` names the one or the
    other.
    """

    factor: Fraction
    rate: Fraction | None
    width: int
    height: int
    length: int
    group_length: int
    index: int
    model: str
    checksum: str
    stamped: bool
    bits: int
    where: str

    def agree(self, what: str, given: Any, stated: Any) -> None:
        """Raise ValueError where an argument contradicts what is stated."""
        if given is not None and stated is not None and given != stated:
            raise ValueError(
                f"{what} is given as {given}, but the clip's {self.where} state {stated}"
            )

    @classmethod
    def of_stamp(cls, clip: Clip, first_frame: bytes) -> Stated | None:
        """None where the first frame has no stamp."""
        if not first_frame or (clip.is_float, clip.bits) not in FORMATS:
            return None
        kind = frame_type(clip)
        frame = np.frombuffer(first_frame, kind.dtype).reshape(3, clip.height, clip.width)
        stamped = find_stamp(frame, kind.top)
        if stamped is None:
            return None
        found, bits = stamped
        return cls(
            factor=found.ratio,
            rate=found.rate,
            width=found.width,
            height=found.height,
            length=found.length,
            group_length=found.group_length,
            index=found.index,
            model="",
            checksum=found.checksum,
            stamped=True,
            bits=bits,
            where="stamps",
        )

    @classmethod
    def read(cls, properties: Mapping[str, Value]) -> Stated | None:
        """None where there are none. Raises ValueError for ones that cannot be right."""
        version = properties.get("CVRSVersion")
        if version is None:
            return None
        if version != PROPERTIES_VERSION:
            raise ValueError(
                f"the clip's frame properties are of version {shown(repr(version))}, "
                f"this plugin reads version {PROPERTIES_VERSION}"
            )

        def number(name: str, low: int) -> int:
            value = properties.get(name)
            if not isinstance(value, int) or value < low:
                raise ValueError(
                    f"frame property {name} must be {low} or more, got {shown(repr(value))}"
                )
            return value

        bits = number("CVRSBits", 1) if "CVRSBits" in properties else DEPTHS[0]
        if bits not in DEPTHS:
            raise ValueError(
                f"frame property CVRSBits must be {' or '.join(map(str, DEPTHS))}, got {bits}"
            )
        rate_num, rate_den = number("CVRSRateNum", 0), number("CVRSRateDen", 0)
        return cls(
            factor=Fraction(number("CVRSFactorNum", 1), number("CVRSFactorDen", 1)),
            rate=Fraction(rate_num, rate_den) if rate_num and rate_den else None,
            width=number("CVRSWidth", 1),
            height=number("CVRSHeight", 1),
            length=number("CVRSLength", 1),
            group_length=number("CVRSGroupLength", 1),
            index=number("CVRSIndex", 0),
            model=shown(str(properties.get("CVRSModel"))),
            checksum=shown(str(properties.get("CVRSChecksum"))),
            stamped=bool(properties.get("CVRSStamped")),
            bits=bits,
            where="frame properties",
        )
