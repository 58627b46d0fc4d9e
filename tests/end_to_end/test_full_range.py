"""Pictures in full black, white and saturated colours, which leave one way only to hide in."""

from __future__ import annotations

import subprocess
from fractions import Fraction

import numpy as np
import pytest

from vs_cvrs import metrics
from vs_cvrs.checkpoints import checkpoint, zoo
from vs_cvrs.evaluation import scoring
from vs_cvrs.evaluation.scenes import Frames
from vs_cvrs.programs.ffmpeg import find_ffmpeg


@pytest.fixture(scope="module")
def moving_picture() -> Frames:
    """Eight frames of ffmpeg's moving test picture."""
    command = [find_ffmpeg(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=448x256:rate=25"]
    command += ["-frames:v", "8", "-f", "rawvideo", "-pix_fmt", "gbrp", "-"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    return np.frombuffer(done.stdout, np.uint8).reshape(8, 3, 256, 448)[:, [2, 0, 1]].copy()


@pytest.mark.parametrize("name", ["lite", "lite-any"])
def test_they_come_back_better_than_averaged(name: str, moving_picture: Frames) -> None:
    model = checkpoint.load(zoo.resolve(name, Fraction(2), Fraction(1))).model.eval()
    low = scoring.encode_group(model, moving_picture, (4, 256, 448))
    restored = scoring.decode_group(model, low, (8, 256, 448)).numpy()
    hidden = metrics.psnr(restored, moving_picture)[1:-1:2]
    known = moving_picture[::2].astype(np.uint16)
    averaged = ((known[:-1] + known[1:] + 1) // 2).astype(np.uint8)
    assert hidden.min() > metrics.psnr(averaged, moving_picture[1:-1:2]).max() + 1.0
    assert metrics.clip_psnr(restored, moving_picture) > 26
