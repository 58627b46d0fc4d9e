"""What the bundled weights promise, on footage that they were not trained on."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from places import VIMEO

from vs_cvrs import metrics
from vs_cvrs.checkpoints import checkpoint, zoo
from vs_cvrs.evaluation import scoring
from vs_cvrs.evaluation.protocol import Protocol
from vs_cvrs.evaluation.scenes import Frames, find_scenes, read_frames
from vs_cvrs.model.base import CvrsModel
from vs_cvrs.timeline import low_size

pytestmark = pytest.mark.skipif(not VIMEO.is_dir(), reason="no validation data")


@pytest.fixture(scope="module")
def lite() -> CvrsModel:
    return checkpoint.load(zoo.resolve("auto", Fraction(2), Fraction(1))).model.eval()


@pytest.fixture(scope="module")
def tiny() -> CvrsModel:
    return checkpoint.load(zoo.resolve("tiny", Fraction(2), Fraction(1))).model.eval()


@pytest.fixture(scope="module", params=["lite", "tiny"])
def at_half_rate(request: pytest.FixtureRequest) -> CvrsModel:
    model: CvrsModel = request.getfixturevalue(request.param)
    return model


@pytest.fixture(scope="module")
def scenes() -> list[Frames]:
    return [read_frames(scene.frames) for scene in find_scenes(VIMEO)]


def round_trip(model: CvrsModel, frames: Frames) -> tuple[Frames, Frames]:
    """Low-rate and restored frames of one group."""
    count, _, height, width = frames.shape
    low = scoring.encode_group(model, frames, (-(-count // 2), height, width))
    restored = scoring.decode_group(model, low, (count, height, width))
    return low.numpy(), restored.numpy()


def test_hidden_frames_come_back_better_than_interpolation_guesses_them(
    at_half_rate: CvrsModel, scenes: list[Frames]
) -> None:
    rife = [29.95, 39.34, 33.21]  # given every second frame of the same sequences
    floors = {"lite": (47.35, 45.45, 42.1), "tiny": (45.8, 44.4, 39.6)}
    rows, gaps = [], []
    for frames, interpolated in zip(scenes, rife, strict=True):
        low, restored = round_trip(at_half_rate, frames)
        score = metrics.psnr(restored, frames)
        shown = metrics.psnr(low, frames[::2])
        rows.append([metrics.clip_psnr(restored, frames), score[1::2].mean(), shown.mean()])
        assert score[1::2].mean() > interpolated
        gaps.append(score[::2].mean() - score[1::2].mean())
    assert (np.mean(rows, axis=0) > floors[at_half_rate.architecture]).all()
    assert np.mean(gaps) < 5.0


def test_half_precision_costs_tiny_little(tiny: CvrsModel, scenes: list[Frames]) -> None:
    scores = []
    for dtype in (None, torch.bfloat16):
        tiny.convolution_dtype = dtype
        scores.append([metrics.clip_psnr(round_trip(tiny, f)[1], f) for f in scenes])
    tiny.convolution_dtype = None
    assert np.mean(scores[0]) - np.mean(scores[1]) < 0.2


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 6])
def test_a_scene_cut_costs_little(at_half_rate: CvrsModel, scenes: list[Frames], cut: int) -> None:
    first, second = scenes[0], scenes[1]
    joined = np.concatenate((first[:cut], second[cut:]))
    _, restored = round_trip(at_half_rate, joined)
    whole = np.concatenate(
        (round_trip(at_half_rate, first)[1][:cut], round_trip(at_half_rate, second)[1][cut:])
    )
    loss = metrics.clip_psnr(whole, joined) - metrics.clip_psnr(restored, joined)
    assert loss < 3.0


def flicker(restored: Frames) -> float:
    """The largest difference of two restored frames of a still scene, in levels RMS."""
    steps = restored[:, None].astype(np.float32) - restored[None]
    return float(np.sqrt(np.square(steps).mean(axis=(2, 3, 4))).max())


def test_a_still_scene_does_not_pulse(at_half_rate: CvrsModel, scenes: list[Frames]) -> None:
    still = np.repeat(scenes[0][:1], 8, axis=0)
    _, restored = round_trip(at_half_rate, still)
    assert flicker(restored) < {"lite": 0.8, "tiny": 1.1}[at_half_rate.architecture]


# Clip PSNR of plain linear blending in time and bicubic reduction in space on the three sequences,
# and by how much more lite-any is to restore.
FLOORS = {
    ("5/4", "1"): ([29.36, 33.94, 35.86], 4.0),
    ("2", "2"): ([26.20, 31.20, 31.76], 2.0),
    ("2", "1.5"): ([26.29, 31.36, 32.59], 0.0),
    ("2", "4"): ([24.91, 29.91, 29.31], 0.0),
    ("1", "2"): ([32.09, 37.15, 34.18], 7.0),
}


@pytest.fixture(scope="module")
def lite_any() -> CvrsModel:
    return checkpoint.load(zoo.resolve("auto", Fraction(5, 4), Fraction(1))).model.eval()


@pytest.mark.parametrize(("ratio", "scale"), FLOORS)
def test_any_rate_and_size_beat_blending(lite_any: CvrsModel, ratio: str, scale: str) -> None:
    floors, gain = FLOORS[ratio, scale]
    scenes = find_scenes(VIMEO)
    protocol = Protocol.of_filters(lite_any, Fraction(ratio), Fraction(scale), scenes[0])
    scores = scoring.evaluate(lite_any, scenes, protocol)
    for score, floor in zip(scores.values(), floors, strict=True):
        assert score.clip_psnr_rgb > floor + gain
        assert score.lr_psnr_rgb > 34.0


def test_any_rate_is_as_good_as_lite_nearly(lite: CvrsModel, lite_any: CvrsModel) -> None:
    scores = [
        scoring.average(
            scoring.evaluate(model, find_scenes(VIMEO), Protocol(Fraction(2), Fraction(1))).values()
        ).clip_psnr_rgb
        for model in (lite, lite_any)
    ]
    assert scores[0] - scores[1] < 2.0


@pytest.mark.parametrize(
    ("high", "low", "scale"),
    [
        *[(8, 4, 1), (5, 4, 1), (12, 4, 1), (8, 4, 2), (4, 4, 2), (5, 4, 3)],
        *[(10, 4, 3), (12, 4, 4), (16, 4, 4)],
    ],
)
def test_a_still_scene_does_not_flicker_at_any_rate(
    lite_any: CvrsModel, scenes: list[Frames], high: int, low: int, scale: int
) -> None:
    still = np.repeat(scenes[1][:1], high, axis=0)
    _, _, height, width = still.shape
    size = tuple(low_size(n, Fraction(scale)) for n in (height, width))
    sent = scoring.encode_group(lite_any, still, (low, size[0], size[1]))
    restored = scoring.decode_group(lite_any, sent, (high, height, width)).numpy()
    assert flicker(restored) < 1.0


def test_what_hides_nothing_is_interpolated_well(scenes: list[Frames]) -> None:
    robust = checkpoint.load(zoo.resolve("robust", Fraction(2), Fraction(1))).model.eval()
    for frames in scenes:
        low = torch.from_numpy(frames[0::2]).permute(1, 0, 2, 3)[None] / 255.0
        with torch.inference_mode():
            made = robust.interpolate(low, (len(frames), *frames.shape[2:]))[0].permute(1, 0, 2, 3)
        levels = (made * 255.0).round().byte().numpy()
        np.testing.assert_array_equal(levels[0::2], frames[0::2])
        blended = (frames[0:-1:2].astype(float) + frames[2::2]) / 2
        removed = metrics.psnr(levels[1::2], frames[1::2]).mean()
        assert removed > metrics.psnr(np.round(blended).astype(np.uint8), frames[1::2]).mean() + 3.0
