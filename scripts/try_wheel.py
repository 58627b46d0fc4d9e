#!/usr/bin/env python3
"""A round trip through an installed wheel, on any system; for cibuildwheel. No argument."""

from __future__ import annotations

import numpy as np
import vapoursynth as vs

import vs_cvrs

LEVELS = 3
"""How far a shade of grey may be off."""


def main() -> None:
    """Halve the rate of eight plain frames, restore it, and look at every frame."""
    core = vs.core
    shades = [60 + 9 * n for n in range(8)]
    frames = [core.std.BlankClip(None, 96, 64, vs.RGB24, 1, 30, color=[s, 120, 99]) for s in shades]
    low = core.cvrs.Downsample(core.std.Splice(frames), fps=15)
    restored = core.cvrs.Upsample(low)
    for frame, shade in zip(restored.frames(), shades, strict=True):
        off = abs(float(np.asarray(frame[0]).mean()) - shade)
        assert off < LEVELS, f"{off:.1f} levels off"
    print(f"vs-cvrs {vs_cvrs.__version__}: {restored.num_frames} frames restored")


if __name__ == "__main__":
    main()
