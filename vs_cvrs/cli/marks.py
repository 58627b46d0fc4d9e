"""What the marks in a file's frames tell (`vs_cvrs.carrier.mark`)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import vapoursynth as vs

from vs_cvrs.carrier import mark
from vs_cvrs.carrier.stamp import Stamp
from vs_cvrs.cli.clips import frame_array
from vs_cvrs.plugin.statements import Stated
from vs_cvrs.timeline import Timeline

__all__ = ["checksum_of", "read_marks", "stamp_of_marks"]


def read_marks(clip: Any) -> Stated | None:
    """What the marks of a clip's first frames tell; None where they have none."""
    if not mark.fits(clip.width, clip.height):
        return None
    evidence = []
    for n in range(min(clip.num_frames, mark.SEARCHED)):
        try:
            evidence.append(mark.read(frame_array(clip.get_frame(n))))
        except vs.Error:  # a frame that cannot be decoded
            continue
    return Stated.of_marks(evidence, clip.width, clip.height)


def stamp_of_marks(stated: Stated, frames: int, checksum: str) -> Stamp:
    """What the stamp of the first frame would tell.

    Args:
        stated: what marks tell.
        frames: low-rate frames that there are.
        checksum: of the model's weights.
    """
    timeline = Timeline(stated.factor, stated.group_length)
    every = timeline.high_begin(stated.index + frames)
    return Stamp(
        ratio=stated.factor,
        rate=None,
        width=stated.width,
        height=stated.height,
        length=every if stated.length is None else min(every, stated.length),
        group_length=stated.group_length,
        index=stated.index,
        checksum=checksum,
    )


def checksum_of(stated: Stated, model: str) -> str | None:
    """Of the weights that made marked frames: those of a model that is given, or of a bundled one.

    None where neither made them.
    """
    from vs_cvrs.checkpoints import checkpoint, zoo

    if model != "auto":
        wanted = checkpoint.load(zoo.resolve(model, stated.factor, Fraction(1))).checksum
        return wanted if stated.is_of(wanted) else None
    name = zoo.name_where(stated.is_of)
    return None if name is None else zoo.checksum(name)
