"""Frames as arrays, (frames, 3, height, width) of 8 bits, to and from VapourSynth clips."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import vapoursynth as vs

from vs_cvrs.evaluation.scenes import Frames

__all__ = ["clip_of", "frames_of"]


def clip_of(frames: Frames, rate: Fraction) -> vs.VideoNode:
    """An RGB24 clip."""
    count, _, height, width = frames.shape
    blank = vs.core.std.BlankClip(
        format=vs.RGB24,
        width=width,
        height=height,
        length=count,
        fpsnum=rate.numerator,
        fpsden=rate.denominator,
        keep=True,
    )

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        for plane in range(3):
            np.copyto(np.asarray(frame[plane]), frames[n, plane])
        return frame

    return vs.core.std.ModifyFrame(blank, blank, fill)


def frames_of(clip: vs.VideoNode) -> Frames:
    """All frames of an RGB24 clip."""
    made = np.empty((clip.num_frames, 3, clip.height, clip.width), np.uint8)
    for target, frame in zip(made, clip.frames(close=True), strict=True):
        for plane in range(3):
            np.copyto(target[plane], np.asarray(frame[plane]))
    return made
