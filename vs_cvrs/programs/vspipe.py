"""Where vspipe is."""

from __future__ import annotations

import shutil
import sysconfig

__all__ = ["find_vspipe"]


def find_vspipe() -> str:
    """Path of the vspipe of this Python's VapourSynth, or else of the one on PATH.

    Raises:
        FileNotFoundError: there is neither.
    """
    found = shutil.which("vspipe", path=sysconfig.get_path("scripts")) or shutil.which("vspipe")
    if not found:
        raise FileNotFoundError("vspipe not found; it comes with: pip install vapoursynth")
    return found
