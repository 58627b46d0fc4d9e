"""Which way a group that loses frames and size comes back better, as a sender guesses.

Hiding what a reduction loses pays where there is much of it, and takes the room of frames that are
left out, which pays where motion explains those. Footage that is soft loses little, and is better
reduced, hidden as at full size and enlarged.

The guess is linear in two errors, in dB, that cost little to find, and in how many frames a
low-rate frame stands for: a fit to what both ways gave of clips cut out of footage at random
(docs/training.md, "Which way").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vs_cvrs.model.light.folding import picked
from vs_cvrs.model.light.resampling import resampled
from vs_cvrs.model.light.residues import motions, sent_sides
from vs_cvrs.model.light.time_net import Layout

__all__ = ["better_predicted", "errors"]

_FLOOR, _MIDDLE = 1e-6, -3.5
"""Errors are told apart from 60 dB down, and are about 35 dB."""

_USUAL_COUNT = 2.0

_GAIN = (-2.01, -3.29, 1.45, 0.74)
"""dB that a group gains without residues: a constant (less 0.1: in doubt residues), what a tenfold
error of size brings, of time, and another frame in each low-rate frame."""


def better_predicted(high: Tensor, size: Sequence[int], layout: Layout) -> bool:
    """Whether a group (1, 3, T, H, W) comes back better without residues.

    Args:
        high: its frames, in 0..1.
        size: height and width of its low-rate frames.
        layout: of those; some carry more than the frame that they show.
    """
    found = ((errors(high, size, layout) + _FLOOR).log10() - _MIDDLE).tolist()
    count = len(layout.carried) / len(layout.counts)
    terms = (1.0, *found, count - _USUAL_COUNT)
    return bool(sum(w * x for w, x in zip(_GAIN, terms, strict=True)) > 0.0)


@torch.no_grad()
def errors(high: Tensor, size: Sequence[int], layout: Layout) -> Tensor:
    """Mean squared errors of a group, (2,): what its size takes from it, and its rate.

    The first is of the frames shown, reduced and enlarged; the second of those left out, as motion
    makes them at the low size.
    """
    with torch.autocast(high.device.type, enabled=False):
        low = resampled(high, size[0], size[1]).clamp(0.0, 1.0)
        shown = [low[:, :, n : n + 1] for n in layout.shown]
        enlarged = resampled(torch.cat(shown, dim=2), *high.shape[-2:])
        of_size = (enlarged - picked(high, layout.shown, 2)).square().mean()
        of_time = []
        for n, motion in enumerate(motions(shown, layout)):
            if layout.counts[n] > 1:
                wanted = picked(low, layout.owned(n)[1:], 2)
                sides, _ = sent_sides(shown, layout, n, motion, wanted, (size[0], size[1]))
                of_time.append(wanted - sides.mixed)
        return torch.stack([of_size, torch.cat(of_time, dim=2).square().mean()])
