"""How far a Matroska file says that it goes, and how far it can be read.

Most state it of every track, which is `Stream.duration`; the others of the longest track alone.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from vs_cvrs.programs.ffmpeg import file_url, find_ffmpeg

__all__ = ["readable_end", "stated_end"]

_MAGIC = b"\x1a\x45\xdf\xa3"
_CLOCK = r"(\d+):(\d\d):(\d\d\.\d+)"


def stated_end(path: Path) -> float | None:
    """The second at which a Matroska file says that it ends; None where it does not, or is none.

    Raises:
        FileNotFoundError: there is no ffmpeg.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return None
    return _seconds(re.findall(rf"^  Duration: {_CLOCK}, ", _said_of(path, []), re.MULTILINE))


def readable_end(path: Path) -> float:
    """The second of the last packet that can be read of any track. Reads the whole file.

    Raises:
        FileNotFoundError: there is no ffmpeg.
    """
    tracks = ["-map", "0:v?", "-map", "0:a?", "-map", "0:s?", "-c", "copy"]
    said = _said_of(path, ["-stats", *tracks, "-f", "null", "-"])
    return _seconds(re.findall(rf"\btime={_CLOCK}", said)) or 0.0


def _said_of(path: Path, words: list[str]) -> str:
    command = [find_ffmpeg(), "-hide_banner", "-nostdin", "-i", file_url(path), *words]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.stderr.decode(errors="replace").replace("\r", "\n")


def _seconds(found: list[tuple[str, str, str]]) -> float | None:
    """The last time that was found."""
    if not found:
        return None
    hours, minutes, seconds = found[-1]
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
