from __future__ import annotations

import itertools

import pytest

from vs_cvrs.carrier.lossless import CODECS, COLOURS, DEPTHS, Carrier, keyframe_interval


def test_every_depth_and_colour_has_a_carrier() -> None:
    made = []
    for codec, colours, bits in itertools.product(CODECS, COLOURS, DEPTHS):
        if (codec, bits) == ("x264", 10):
            with pytest.raises(ValueError, match=f"10-bit frames as {colours}.*x265 and ffv1 can"):
                Carrier(codec, colours, bits)
        else:
            made.append(Carrier(codec, colours, bits))
    assert len({(c.encoder, c.pixel_format) for c in made}) == len(made) == 10


@pytest.mark.parametrize(("group", "frames"), [(1, 24), (4, 24), (5, 25), (7, 21), (40, 40)])
def test_keyframes_are_whole_groups_apart(group: int, frames: int) -> None:
    assert keyframe_interval(group) == frames
