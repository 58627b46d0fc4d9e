"""Clips with known frames, and frames as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import vapoursynth as vs

core = vs.core

Array = npt.NDArray[Any]


def pictures(count: int, width: int = 32, height: int = 24, seed: int = 0) -> Array:
    """Smoothly moving 8-bit pictures, all different: (count, 3, height, width)."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (3, 1, 1))
    y, x = np.mgrid[0:height, 0:width]
    t = np.arange(count).reshape(-1, 1, 1, 1)
    wave = np.sin(x / 3 + phase + t / 2) + np.cos(y / 4 - t / 3) * np.sin(phase + x * y / 99)
    levels: Array = np.clip(np.round(127.5 + 60 * wave), 0, 255)
    return levels.astype(np.uint8)


def panned(count: int, width: int, height: int) -> Array:
    """8-bit pictures of waves that a camera passes, 2 pixels to the side and 1 down a frame."""
    y, x = np.mgrid[0:height, 0:width]
    t = np.arange(count).reshape(-1, 1, 1, 1)
    x, y = x - 2 * t, y - t
    colour = np.arange(3).reshape(3, 1, 1)
    wave = np.sin(x / 6 + colour) + np.cos(y / 5 + x / 11) + np.sin(x / 23 - y / 17 + 2 * colour)
    levels: Array = np.round(127.5 + 30 * wave)
    return levels.astype(np.uint8)


def clip_of(frames: Array, fps: tuple[int, int] = (30, 1)) -> Any:
    """An RGB24 clip of 8-bit pictures; fps (0, 1) for an unknown rate."""
    count, _, height, width = frames.shape
    blank = core.std.BlankClip(
        format=vs.RGB24, width=width, height=height, length=count, fpsnum=fps[0], fpsden=fps[1]
    )

    def fill(n: int, f: Any) -> Any:
        made = f.copy()
        for plane in range(3):
            np.asarray(made[plane])[:] = frames[n, plane]
        made.props["SourceFrame"] = n
        return made

    return core.std.ModifyFrame(blank, blank, fill)


def forget(clip: Any) -> Any:
    """The clip as it comes from a file: without its frame properties."""
    return core.std.RemoveFrameProps(clip)


def array_of(frame: Any) -> Array:
    """(3, height, width) of a frame."""
    return np.stack([np.asarray(frame[plane]) for plane in range(3)])


def frames_of(clip: Any, order: Iterable[int] | None = None) -> Array:
    """(count, 3, height, width), requested in the given order."""
    found = {n: array_of(clip.get_frame(n)) for n in order or range(clip.num_frames)}
    return np.stack([found[n] for n in sorted(found)])
