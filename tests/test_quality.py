"""What the bundled weights promise, on footage that they were not trained on."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from vs_cvrs import checkpoint, metrics, zoo
from vs_cvrs.evaluation import scoring
from vs_cvrs.evaluation.scenes import Frames, find_scenes, read_frames
from vs_cvrs.model.base import CvrsModel

FOOTAGE = Path(__file__).resolve().parents[2] / "shared" / "data" / "val" / "vimeo"

pytestmark = pytest.mark.skipif(not FOOTAGE.is_dir(), reason="no validation data")


@pytest.fixture(scope="module")
def lite() -> CvrsModel:
    return checkpoint.load(zoo.resolve("auto", Fraction(2), Fraction(1))).model.eval()


@pytest.fixture(scope="module")
def scenes() -> list[Frames]:
    return [read_frames(scene.frames) for scene in find_scenes(FOOTAGE)]


def round_trip(model: CvrsModel, frames: Frames) -> tuple[Frames, Frames]:
    """Low-rate and restored frames of one group."""
    count, _, height, width = frames.shape
    low = scoring.encode_group(model, frames, (-(-count // 2), height, width))
    restored = scoring.decode_group(model, low, (count, height, width))
    return low.numpy(), restored.numpy()


def test_hidden_frames_come_back_better_than_interpolation_guesses_them(
    lite: CvrsModel, scenes: list[Frames]
) -> None:
    rife = [29.95, 39.34, 33.21]  # given every second frame of the same sequences
    clip, odd, even, shown = [], [], [], []
    for frames, interpolated in zip(scenes, rife, strict=True):
        low, restored = round_trip(lite, frames)
        score = metrics.psnr(restored, frames)
        clip.append(metrics.clip_psnr(restored, frames))
        odd.append(score[1::2].mean())
        even.append(score[::2].mean())
        shown.append(metrics.psnr(low, frames[::2]).mean())
        assert odd[-1] > interpolated
    assert np.mean(clip) > 44.0
    assert np.mean(odd) > 41.5
    assert np.mean(shown) > 40.0
    assert np.mean(even) - np.mean(odd) < 6.8


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 6])
def test_a_scene_cut_costs_little(lite: CvrsModel, scenes: list[Frames], cut: int) -> None:
    first, second = scenes[0], scenes[1]
    joined = np.concatenate((first[:cut], second[cut:]))
    _, restored = round_trip(lite, joined)
    whole = np.concatenate((round_trip(lite, first)[1][:cut], round_trip(lite, second)[1][cut:]))
    loss = metrics.clip_psnr(whole, joined) - metrics.clip_psnr(restored, joined)
    assert loss < 3.0


def test_a_still_scene_does_not_pulse(lite: CvrsModel, scenes: list[Frames]) -> None:
    still = np.repeat(scenes[0][:1], 8, axis=0)
    _, restored = round_trip(lite, still)
    steps = torch.from_numpy(np.diff(restored.astype(np.float32), axis=0))
    assert float(steps.square().mean(dim=(1, 2, 3)).sqrt().max()) < 1.25
