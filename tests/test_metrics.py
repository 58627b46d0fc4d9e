"""Metrics: against scikit-image and against answers worked out by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from vs_cvrs import metrics

Array = npt.NDArray[np.uint8]


def _frames(seed: int, count: int = 3, height: int = 37, width: int = 46) -> Array:
    """Smooth pictures: random grids, enlarged, so that SSIM sees structure."""
    rng = np.random.default_rng(seed)
    small = torch.from_numpy(rng.uniform(0, 255, (count, 3, 6, 7)))
    large = torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic")
    return large.clamp(0, 255).round().to(torch.uint8).numpy()


def _noisy(frames: Array, seed: int, amplitude: int) -> Array:
    rng = np.random.default_rng(seed)
    noise = rng.integers(-amplitude, amplitude + 1, frames.shape)
    return np.clip(frames.astype(np.int64) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(params=[1, 12, 90])
def pair(request: pytest.FixtureRequest) -> tuple[Array, Array]:
    clean = _frames(1)
    return _noisy(clean, 2, request.param), clean


def test_psnr_equals_scikit_image(pair: tuple[Array, Array]) -> None:
    for restored, clean, value in zip(*pair, metrics.psnr(*pair), strict=True):
        expected = peak_signal_noise_ratio(clean, restored, data_range=255)  # type: ignore[no-untyped-call]
        assert value == pytest.approx(expected, rel=1e-12)


def test_psnr_y_equals_scikit_image_luma(pair: tuple[Array, Array]) -> None:
    lumas = [rgb2ycbcr(frames.transpose(0, 2, 3, 1))[..., 0] for frames in pair]
    expected = [
        10 * np.log10(255**2 / mean_squared_error(x, y)) for x, y in zip(*lumas, strict=True)
    ]
    np.testing.assert_allclose(metrics.psnr(*pair, luma=True), expected, rtol=1e-9)


@pytest.mark.parametrize("luma", [False, True])
def test_ssim_equals_scikit_image(pair: tuple[Array, Array], luma: bool) -> None:
    a, b = (metrics.rgb_to_y(x).numpy() if luma else x.astype(np.float64) for x in pair)
    expected = [
        structural_similarity(  # type: ignore[no-untyped-call]
            x,
            y,
            channel_axis=0,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(metrics.ssim(*pair, luma=luma), expected, rtol=0, atol=1e-9)


def test_luma_of_known_colours() -> None:
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]], np.uint8).reshape(3, 3, 1, 1)
    y = metrics.rgb_to_y(colours).flatten().tolist()
    assert y == pytest.approx([16.0, 235.0, 81.481])


def test_one_level_everywhere_is_48_13_db() -> None:
    black = np.zeros((2, 3, 12, 12), np.uint8)
    assert metrics.psnr(black + 1, black) == pytest.approx([48.1308, 48.1308], abs=1e-4)
    # A grey step of one level is 219/255 of a level of luma.
    expected = 48.1308 - 20 * np.log10(219 / 255)
    assert metrics.psnr(black + 1, black, luma=True) == pytest.approx([expected] * 2, abs=1e-4)


def test_clip_psnr_weighs_squared_errors() -> None:
    black = np.zeros((2, 3, 12, 12), np.uint8)
    half = black.copy()
    half[1] = 2  # errors 0 and 4: mean 2
    assert metrics.clip_psnr(half, black) == pytest.approx(48.1308 - 10 * np.log10(2), abs=1e-4)


def test_identical_frames_are_capped() -> None:
    frames = _frames(3)
    assert metrics.psnr(frames, frames).tolist() == [metrics.PSNR_CAP] * 3
    assert metrics.clip_psnr(frames, frames) == metrics.PSNR_CAP
    assert metrics.ssim(frames, frames).tolist() == pytest.approx([1.0] * 3)


def test_tensors_and_arrays_agree(pair: tuple[Array, Array]) -> None:
    tensors = [torch.from_numpy(x) for x in pair]
    assert metrics.ssim(tensors[0], tensors[1]).tolist() == metrics.ssim(*pair).tolist()


@pytest.mark.parametrize(
    ("restored", "message"),
    [
        (np.zeros((1, 3, 16, 20), np.uint8), r"same shape, got \(1, 3, 16, 20\)"),
        (np.zeros((1, 16, 16, 3), np.uint8), r"\(frames, 3, height, width\)"),
        (np.zeros((1, 3, 16, 16), np.float32), "must be uint8"),
    ],
)
def test_frames_that_do_not_fit_are_refused(
    restored: npt.NDArray[np.generic], message: str
) -> None:
    reference = np.zeros((1, 3, 16, 16), np.uint8)
    with pytest.raises(ValueError, match=message):
        metrics.psnr(restored, reference)  # type: ignore[arg-type]


def test_small_or_no_frames_are_refused() -> None:
    small = np.zeros((1, 3, 10, 40), np.uint8)
    with pytest.raises(ValueError, match="at least 11x11, got 40x10"):
        metrics.ssim(small, small)
    with pytest.raises(ValueError, match="at least one frame"):
        metrics.clip_psnr(small[:0], small[:0])
