"""Where vspipe is."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

__all__ = ["find_vspipe"]


def find_vspipe() -> str:
    """Path of the vspipe of this Python's VapourSynth, or else of the one on PATH.

    Raises:
        FileNotFoundError: there is neither.
    """
    beside = Path(sysconfig.get_path("scripts")) / "vspipe"
    found = str(beside) if beside.exists() else shutil.which("vspipe")
    if not found:
        raise FileNotFoundError("vspipe not found; it comes with: pip install vapoursynth")
    return found
