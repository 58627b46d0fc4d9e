"""What a file holds beside the frames that are encoded, and what of it is not kept."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import vapoursynth as vs

from vs_cvrs.cli.running import CliError

__all__ = ["Stream", "bestsource_path", "not_kept", "streams_of"]

_COVER = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC
_KINDS = {"subtitle": "subtitle track", "attachment": "attachment", "data": "data track"}


@dataclass(frozen=True)
class Stream:
    """A stream of a file.

    Attributes:
        kind: video, audio, subtitle, attachment, data or another of FFmpeg's.
        codec: FFmpeg's name.
        cover: a picture that stands for the file, not a video.
        metadata: language, title and whatever else the file says of it; names in small letters.
    """

    kind: str
    codec: str
    cover: bool
    metadata: dict[str, str]


def bestsource_path(path: Path) -> bytes:
    """A file's name for BestSource: absolute, and any bytes a file's name may have."""
    return os.fsencode(path.absolute())


def streams_of(path: Path) -> list[Stream]:
    """The streams of a file, in its order.

    Raises:
        CliError: the file cannot be read.
    """
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
            said = vs.core.bs.Metadata(name, track=number)
            # VapourSynth gives a single value without its name.
            pairs = said.items() if isinstance(said, dict) else ()
            metadata = {str(key).lower(): _text(value) for key, value in pairs}
            cover = bool(int(disposition) & _COVER)
            streams.append(Stream(_text(kind), _text(codec), cover, metadata))
    except vs.Error as error:
        raise CliError(f"{path} cannot be read as video: {error}") from error
    return streams


def not_kept(clip: Any, streams: Sequence[Stream], track: int) -> list[str]:
    """What of a source is in no low-rate file, in a few words each. Depth is a carrier's matter.

    Args:
        clip: the source's video, in its own format.
        streams: of the file.
        track: which of them the video is.
    """
    lost = []
    frame = clip.get_frame(0)
    properties = frame.props
    if _is_transparent(properties) or streams[track].metadata.get("alpha_mode") == "1":
        lost.append("transparency")
    counts: Counter[str] = Counter()
    for number, stream in enumerate(streams):
        if number == track or stream.kind == "audio":
            continue
        name = _KINDS.get(stream.kind, f"{stream.kind} track")
        counts["cover picture" if stream.cover else name] += 1
    lost += [name if count == 1 else f"{count} {name}s" for name, count in counts.items()]
    return lost


def _is_transparent(properties: Any) -> bool:
    alpha = properties.get("_Alpha")
    if alpha is None:
        return False
    plane = np.asarray(alpha[0])
    opaque = 1.0 if plane.dtype.kind == "f" else (1 << alpha.format.bits_per_sample) - 1
    return bool((plane < opaque).any())


def _list(value: Any) -> list[Any]:
    """VapourSynth gives a property with one value as that value."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
