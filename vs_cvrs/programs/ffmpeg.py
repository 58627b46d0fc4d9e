"""Where ffmpeg is, what it can do, and how it is told of files."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

__all__ = ["file_url", "find_ffmpeg", "has_option"]


def file_url(path: Path) -> str:
    """What to call a file in ffmpeg's arguments, whatever its name.

    Without the protocol in front, a leading "-" is an option, "a:b" a protocol, and "?" and "#" are
    parts of an address.
    """
    return f"file:{path.absolute()}"


def find_ffmpeg() -> str:
    """Path of the ffmpeg on PATH, or of the one inside the imageio-ffmpeg package.

    Raises:
        FileNotFoundError: there is neither.
    """
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise FileNotFoundError(
            "no ffmpeg on PATH; install one, or: pip install imageio-ffmpeg"
        ) from error
    return str(imageio_ffmpeg.get_ffmpeg_exe())


@functools.lru_cache
def has_option(name: str) -> bool:
    """Whether this ffmpeg has an option of its own: releases differ.

    Raises:
        FileNotFoundError: there is no ffmpeg.
    """
    command = [find_ffmpeg(), "-hide_banner", "-h", "long"]
    said = subprocess.run(command, capture_output=True, check=False).stdout.decode()
    return any(line.lstrip().startswith((f"-{name} ", f"-{name}[")) for line in said.splitlines())
