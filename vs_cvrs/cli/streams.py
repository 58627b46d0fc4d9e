"""What a file holds, and what it says of itself."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vapoursynth as vs

from vs_cvrs.cli.running import CliError

__all__ = ["Stream", "bestsource_path", "check_file", "metadata_of", "streams_of"]

_COVER = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC


@dataclass(frozen=True)
class Stream:
    """A stream of a file.

    Attributes:
        kind: video, audio, subtitle, attachment, data or another of FFmpeg's.
        codec: FFmpeg's name.
        disposition: FFmpeg's flags: default, forced, of comment...
        metadata: language, title and whatever else the file says of it; names in small letters.
    """

    kind: str
    codec: str
    disposition: int
    metadata: dict[str, str]

    @property
    def cover(self) -> bool:
        """Whether it is a picture that stands for the file, not a video."""
        return bool(self.disposition & _COVER)

    @property
    def duration(self) -> float | None:
        """At which second it ends, as most Matroska files state it of each track."""
        found = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", self.metadata.get("duration", ""))
        return found and 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3])


def bestsource_path(path: Path) -> bytes:
    """A file's name for BestSource: absolute, and any bytes a file's name may have."""
    return os.fsencode(path.absolute())


def check_file(path: Path) -> None:
    """Raise CliError for what is not a file."""
    if not path.is_file():
        raise CliError(f"{path} is not a file")


def streams_of(path: Path) -> list[Stream]:
    """The streams of a file, in its order.

    Raises:
        CliError: there is no such file, or it cannot be read.
    """
    check_file(path)
    name = bestsource_path(path)
    try:
        found = vs.core.bs.TrackInfo(name)
        kinds, codecs, dispositions = (
            _list(found[key]) for key in ("tracktypestr", "codecstr", "disposition")
        )
        streams = []
        for number, (kind, codec, disposition) in enumerate(
            zip(kinds, codecs, dispositions, strict=True)
        ):
            metadata = _pairs(vs.core.bs.Metadata(name, track=number))
            streams.append(Stream(_text(kind), _text(codec), int(disposition), metadata))
    except vs.Error as error:
        raise CliError(f"{path} cannot be read as video: {error}") from error
    return streams


def metadata_of(path: Path) -> dict[str, str]:
    """What a file says of itself as a whole; names in small letters.

    Raises:
        CliError: the file cannot be read.
    """
    try:
        return _pairs(vs.core.bs.Metadata(bestsource_path(path)))
    except vs.Error as error:
        raise CliError(f"{path} cannot be read as video: {error}") from error


def _pairs(said: Any) -> dict[str, str]:
    if said is None:
        return {}
    if not isinstance(said, dict):
        # VapourSynth gives a single value without its name.
        text = _text(said)
        return {"language" if re.fullmatch("[a-z]{3}", text) else "title": text}
    return {str(key).lower(): _text(value) for key, value in said.items()}


def _list(value: Any) -> list[Any]:
    """VapourSynth gives a property with one value as that value."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
