"""What a clip made by Downsample states of itself: by frame properties, or by stamps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from vs_cvrs.carrier import mark
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
    """What the frame properties, the stamps or the marks of a clip made by Downsample state.

    Rate and length None: unknown. ``bits`` are those of low-rate samples. ``where`` names what
    tells. Marks have only a part of the model's checksum (`mark.model_id`).
    """

    factor: Fraction
    rate: Fraction | None
    width: int
    height: int
    length: int | None
    group_length: int
    index: int
    model: str
    checksum: str
    stamped: bool
    bits: int
    where: str
    model_id: int | None = None

    @property
    def has_properties(self) -> bool:
        """Whether the frame properties tell it."""
        return self.where == "frame properties"

    def is_of(self, checksum: str) -> bool:
        """Whether a model of these weights made the clip, as far as is known."""
        if self.model_id is not None:
            return mark.model_id(checksum) == self.model_id
        return checksum == self.checksum

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
    def of_marks(cls, evidence: Sequence[mark.Evidence], width: int, height: int) -> Stated | None:
        """What the marks of a clip's first frames state; None where they have none.

        Args:
            evidence: what each of the frames says.
            width: of the frames.
            height: likewise.
        """
        found = mark.find(evidence) if evidence else None
        if found is None:
            return None
        message = found.message
        places = mark.follow(evidence, [found])
        there = next((n for n, place in enumerate(places) if place is not None), None)
        if there is None:
            return None
        place = places[there]
        assert place is not None
        columns, rows = message.excess
        # Numbers begin again after a period: of a clip that was cut the place in a group is all
        # that is known.
        index = (place.number - there) % message.period
        return cls(
            factor=message.ratio,
            rate=None,
            width=width - columns,
            height=height - rows,
            length=message.length if index == 0 else None,
            group_length=message.group_length,
            index=index % message.group_length,
            model="",
            checksum="",
            stamped=False,
            bits=8,
            where="marks",
            model_id=message.model,
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
