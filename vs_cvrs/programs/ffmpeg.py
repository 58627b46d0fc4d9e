"""Where ffmpeg is, and the arguments with which it keeps every bit of a low-rate frame.

Low-rate frames are 8-bit RGB. BT.709 YUV 4:4:4 with 10 bits carries all 16,777,216 colours without
loss, and most encoders and players take it; 8 bits or subsampled chroma do not carry them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["CARRIER_FORMAT", "LOSSLESS", "file_url", "find_ffmpeg"]

CARRIER_FORMAT = "yuv444p10le"
"""ffmpeg's name of the pixel format that low-rate frames travel in."""

LOSSLESS: dict[str, list[str]] = {
    "x264": ["-c:v", "libx264", "-qp", "0"],
    "x265": ["-c:v", "libx265", "-x265-params", "lossless=1:log-level=error"],
    "ffv1": ["-c:v", "ffv1", "-level", "3", "-g", "1"],
}
"""ffmpeg's video options for each lossless encoder, without the pixel format."""


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
